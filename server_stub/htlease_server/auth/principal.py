"""Whoever sends a request: who they are, and the scope of their token and what it allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from htlease.rules import messages as m
from htlease.rules.attempt import check_name
from htlease_server.auth.roles import ADMINISTERING, CALLS, KINDS, MAY, Role

#: The scope of every workflow.
EVERYWHERE = ("*",)
PATTERNS_MAX = 50


def check_pattern(text: str) -> str:
    """Return what names a workflow, or with `*` at its end all that begin so.

    Raises InvalidField.
    """
    if text != "*":
        check_name("workflows", text.removesuffix("*"))
    return text


def is_within(patterns: tuple[str, ...], workflow: str) -> bool:
    """Tell whether one of the patterns takes in a workflow, or a pattern of workflows."""
    for pattern in patterns:
        if pattern == workflow:
            return True
        if pattern.endswith("*") and workflow.startswith(pattern[:-1]):
            return True
    return False


@dataclass(frozen=True)
class Binding:
    """The submission that a job token is for, and the start of it if it is for one only."""

    #: `SCHEDD#CLUSTER.*`: whatever job of that cluster.
    global_job_id: str
    #: As `Evidence.job_starts` counts.
    job_starts: int | None = None

    def why_not(self, command: m.Acquire) -> str | None:
        """Say why this command is another's, or None."""
        if not self._takes_in(command.global_job_id or ""):
            return f"this token is for job {self.global_job_id}, not {command.global_job_id}"
        if self.job_starts not in (None, command.evidence.job_starts):
            return (
                f"this token is for start {self.job_starts} of {self.global_job_id}, not"
                f" {command.evidence.job_starts}"
            )
        return None

    def _takes_in(self, global_job_id: str) -> bool:
        if self.global_job_id.endswith(".*"):
            return global_job_id.startswith(self.global_job_id[:-1])
        return global_job_id == self.global_job_id


@dataclass(frozen=True)
class TokenClaims:
    """What a token of this server says of itself."""

    id: str
    #: The token that this one renews, over however many others; itself if none.
    root_id: str
    issued_at: float
    #: When the last renewal of it expires.
    ends_at: float
    #: The tokens with which it was made, and with which those were.
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caller:
    """Whoever a request comes from, and what their token lets them do."""

    #: As the history records it, e.g. `admin`, or `token:` and the token's ID.
    actor: str
    role: Role
    #: Names of workflows, or beginnings of them with `*` at the end.
    workflows: tuple[str, ...] = EVERYWHERE
    #: The one subjob of a job token.
    subjob: str | None = None
    #: On the server's clock, seconds since 1970.
    expires_at: float = float("inf")
    #: To whom a workflow belongs that this caller makes, and who needs no pattern for it then.
    owner: str = "admin"
    binding: Binding | None = None
    #: None for the administrator, and for tokens that others made.
    token_claims: TokenClaims | None = None

    def may_see(self, workflow: str, subjob: str | None = None) -> bool:
        """Tell whether a workflow (subjob None) or a subjob is within scope by its name."""
        if self.workflows is EVERYWHERE:
            return True
        is_near = workflow in self.workflows or is_within(self.workflows, workflow)
        return is_near and self.subjob in (None, subjob)

    @property
    def may_own(self) -> bool:
        """Tell whether what belongs to this caller is within scope, for want of any pattern."""
        return self.role is Role.SUBMITTER and not self.workflows

    def may(self, call: str) -> bool:
        """Tell whether the role makes this call at all."""
        return call in CALLS[self.role]

    def why_no_call(self, call: str) -> str:
        """Say why the role does not make this call."""
        wanted = MAY.get(call, ADMINISTERING)
        names = ", ".join(role.value for role in Role if role in wanted)
        return f"{call} needs one of the roles {names}; this token is for {self.scope}"

    def why_not_acquire(self, command: m.Acquire) -> str | None:
        """Say why this caller may not take a lease within its scope, or None if it may."""
        kinds = KINDS[self.role]
        if command.kind not in kinds:
            return f"this token is for {self.scope} and acquires as {', '.join(kinds)} only"
        return None if self.binding is None else self.binding.why_not(command)

    def out_of_scope(self, what: object) -> str:
        """Say that a workflow or subjob is beyond this token."""
        return f"this token is for {self.scope}, not for {what}"

    @property
    def scope(self) -> str:
        """What a token is for, as people write it."""
        if self.role is Role.JOB:
            return f"{self.workflows[0]}/{self.subjob or '*'}"
        if self.role is Role.WORKFLOW:
            return f"workflow {self.workflows[0]}"
        where = ", ".join(self.workflows) or "its own workflows"
        where = "all workflows" if "*" in self.workflows else where
        return f"{'an' if self.role.value[0] in 'ao' else 'a'} {self.role.value} of {where}"


ANONYMOUS = Caller("anonymous", Role.ADMIN, owner="anonymous")
ADMIN = Caller("admin", Role.ADMIN)
#: Behind the calls that need no token.
NOBODY = Caller("nobody", Role.READER, ())
