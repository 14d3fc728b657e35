"""Who is asking: subjob keys, attempt IDs, and the evidence that orders attempts.

HTCondor's counters are evidence and never proof. `NumJobStarts` reaches the queue lazily, so
several starts may show one value; `NumShadowStarts` also counts reconnects of a process that goes
on; a restart by `checkpoint_exit_code` moves neither. Attempts are therefore compared by
dominance, and only the server's fence decides. `start_number` is the one module that knows
by how much each reader of `NumJobStarts` is off.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from htlease.errors import InvalidField
from htlease.rules.start_number import ReadFrom as ReadFrom
from htlease.rules.start_number import start_number as start_number

NAME_LENGTH_MAX = 200
NAME_PATTERN = "[A-Za-z0-9._~@:=+,#-]+"
_NAME = re.compile(NAME_PATTERN)


def check_name(field: str, text: str) -> str:
    """Return `text` if it can name a workflow, subjob or phase.

    Names travel through submit files, argv, URLs and file names, so they are letters, digits and
    `. _ ~ @ : = + , # -`, at most 200 of them. Raises InvalidField naming the first bad character.
    """
    if not isinstance(text, str) or not text:
        raise InvalidField(field, "is empty; give it a name such as `run7` or `sample-0042`")
    if len(text) > NAME_LENGTH_MAX:
        raise InvalidField(field, f"has {len(text)} characters; {NAME_LENGTH_MAX} is the limit")
    if not _NAME.fullmatch(text):
        bad = next(char for char in text if not _NAME.fullmatch(char))
        raise InvalidField(
            field,
            f"{text!r} contains {bad!r}; use only letters, digits and . _ ~ @ : = + , # -",
        )
    if text in {".", ".."}:
        raise InvalidField(field, f"{text!r} is a directory, not a name")
    return text


@dataclass(frozen=True)
class SubjobKey:
    """Names a unit of work that outlives restarts, node retries and resubmission."""

    workflow: str
    subjob: str

    def __post_init__(self) -> None:
        check_name("workflow", self.workflow)
        check_name("subjob", self.subjob)

    @classmethod
    def parse(cls, text: str) -> SubjobKey:
        """Read `workflow/subjob`; raises InvalidField for anything else."""
        workflow, slash, subjob = text.partition("/")
        if not slash or "/" in subjob:
            raise InvalidField(
                "key", f"{text!r} is not WORKFLOW/SUBJOB with exactly one slash, e.g. `run7/s-12`"
            )
        return cls(workflow, subjob)

    def __str__(self) -> str:
        return f"{self.workflow}/{self.subjob}"


class Order(enum.Enum):
    """How one attempt stands to another, by their evidence."""

    NEWER = "newer"
    OLDER = "older"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Evidence:
    """What a start knows about its place in the order of starts; any part may be absent."""

    #: Which start of the submission this is, 1 = first (`start_number` made it).
    job_starts: int | None = None
    #: `NumShadowStarts` as seen in `.job.ad`; runs ahead of real starts but never back.
    shadow_starts: int | None = None
    #: `ShadowBday`, seconds since 1970 on the access point's clock.
    shadow_birthdate: int | None = None
    #: How many wrapper processes this scratch directory has seen, this one included.
    sandbox_seq: int | None = None

    def __post_init__(self) -> None:
        for name in ("job_starts", "shadow_starts", "shadow_birthdate", "sandbox_seq"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62
            ):
                raise InvalidField(f"evidence.{name}", f"{value!r} is not a count")

    @property
    def has_counters(self) -> bool:
        """Whether any of HTCondor's counters is known."""
        known = (self.job_starts, self.shadow_starts, self.shadow_birthdate)
        return known != (None, None, None)

    def compared_to(self, other: Evidence) -> Order:
        """Return how this attempt stands to `other`, an attempt of the same submission.

        Dominance over HTCondor's counters: newer if no known part is behind and one is ahead.
        `sandbox_seq` starts again in each scratch directory, so it only breaks a tie of counters.
        """
        order = self.counters_compared_to(other)
        if order is not Order.SAME or None in (self.sandbox_seq, other.sandbox_seq):
            return order
        return _dominance((self.sandbox_seq, other.sandbox_seq))

    def counters_compared_to(self, other: Evidence) -> Order:
        """Return the order by HTCondor's counters alone: whether another starter is at work."""
        return _dominance(
            (self.job_starts, other.job_starts),
            (self.shadow_starts, other.shadow_starts),
            (self.shadow_birthdate, other.shadow_birthdate),
        )


def _dominance(*pairs: tuple[int | None, int | None]) -> Order:
    known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
    ahead = any(mine > theirs for mine, theirs in known)
    behind = any(mine < theirs for mine, theirs in known)
    if not known or (ahead and behind):
        return Order.UNCLEAR
    if ahead:
        return Order.NEWER
    return Order.OLDER if behind else Order.SAME


@dataclass(frozen=True)
class Place:
    """Where an attempt runs; it proves that an earlier one is over, it orders nothing.

    A slot runs one starter at a time, so a newcomer in the same slot of the same startd instance
    shows that the starter before it has ended.
    """

    machine: str | None = None
    #: The slot's `Name`, e.g. `slot1_3@ep1.example.org`.
    slot: str | None = None
    #: `PublicClaimId` without the claim's own number: the startd's address and start time.
    startd: str | None = None

    def is_same_slot_as(self, other: Place) -> bool:
        """Tell whether both name one slot of one startd process, with every part known."""
        return None not in (self.slot, self.startd) and self == other


@dataclass(frozen=True)
class AttemptId:
    """Names one start of one submission, e.g. `ap1#42.0#1795225431@2.3`.

    The text is `GlobalJobId@start.shadow start`, `-` for a part that is not known. It is for
    people and look-ups; the order of attempts comes from `Evidence`.
    """

    global_job_id: str
    start: int | None
    shadow_start: int | None

    @classmethod
    def of(cls, global_job_id: str, evidence: Evidence) -> AttemptId:
        """Return the ID of the start that `evidence` describes."""
        return cls(global_job_id, evidence.job_starts, evidence.shadow_starts)

    @classmethod
    def parse(cls, text: str) -> AttemptId:
        """Read the text form; raises InvalidField."""
        head, at, counts = text.rpartition("@")
        start, dot, shadow_start = counts.partition(".")
        try:
            if not (head and at and dot):
                raise ValueError
            return cls(
                head,
                None if start == "-" else int(start),
                None if shadow_start == "-" else int(shadow_start),
            )
        except ValueError:
            raise InvalidField(
                "attempt_id", f"{text!r} is not GLOBALJOBID@START.SHADOWSTART"
            ) from None

    def __str__(self) -> str:
        start = "-" if self.start is None else self.start
        shadow_start = "-" if self.shadow_start is None else self.shadow_start
        return f"{self.global_job_id}@{start}.{shadow_start}"
