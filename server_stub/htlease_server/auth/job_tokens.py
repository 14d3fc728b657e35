"""This server's own tokens: JWTs under its signing keys (HS256, always), made and checked here.

Claims: `role` and `workflows`, or `workflow` and `subjob`; `owner`, to whom belongs what is made
with it; `job`, the submission that it is for; `root`, the token that it renews; `from`, the tokens
with which it was made; `end`, when the last renewal of it ends. Neither tokens nor keys reach a
log, or an answer but that to whoever asked.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt

from htlease.errors import InvalidField
from htlease.rules.attempt import SubjobKey
from htlease_server.auth.principal import EVERYWHERE, Binding, Caller, TokenClaims, is_within
from htlease_server.auth.roles import MINTS, Role, role_named
from htlease_server.auth.signing_keys import KeyRing

ISSUER = "htlease"
_ALGORITHM = "HS256"
TTL_MAX_SECONDS = 366 * 86400.0
#: What reading a token raises that is none: numbers and nesting of any size come in it.
UNREADABLE = (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError)
NOT_OURS = "the token is not one of this server's"
EXPIRED = "the token has expired; mint a new one"


@dataclass(frozen=True)
class TokenRequest:
    """A token as somebody wants it."""

    role: Role
    workflows: tuple[str, ...]
    ttl_seconds: float
    subjob: str | None = None
    #: Of a submitter's token: to whom belongs what is made with it.
    name: str | None = None
    binding: Binding | None = None

    @property
    def about(self) -> str:
        """What the token is for, as people write it."""
        where = ", ".join(self.workflows) or "own workflows"
        if self.role is Role.JOB:
            return f"a job token for {where}/{self.subjob or '*'}"
        return f"a {self.role.value} token for {where}"


@dataclass(frozen=True)
class MintedToken:
    """A new token; `text` is for whoever asked, and for nobody else."""

    text: str
    id: str
    expires_at: float


class OwnTokens:
    """Makes and checks tokens; `clock` gives seconds since 1970."""

    def __init__(self, keys: KeyRing, clock: Callable[[], float]) -> None:
        self.keys = keys
        self._clock = clock

    def verify(self, token: bytes) -> Caller | str:
        """Return whose token it is, or why it is nobody's."""
        try:
            key = self.keys.find(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                return NOT_OURS
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                options={
                    "require": ["exp", "iat", "jti"],
                    # By this server's clock, which is no machine's wall clock.
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            caller = _caller_of(claims)
        except (InvalidField, KeyError, *UNREADABLE):
            return NOT_OURS
        return caller if self._clock() < caller.expires_at else EXPIRED

    def mint(self, wanted: TokenRequest, by: Caller) -> MintedToken:
        """Return a new token; what a workflow's token makes ends with it at the latest."""
        now = self._clock()
        is_derived = by.role is Role.WORKFLOW
        ends_at = by.expires_at if is_derived else now + TTL_MAX_SECONDS
        claims: dict[str, Any] = {"owner": wanted.name or by.owner, "end": int(ends_at)}
        if by.token_claims is not None:
            claims["from"] = [*by.token_claims.parents, by.token_claims.id]
        claims |= _scope_claims(wanted.role, wanted.workflows, wanted.subjob)
        if wanted.binding is not None:
            claims["job"] = {
                "id": wanted.binding.global_job_id,
                "start": wanted.binding.job_starts,
            }
        return self._signed(claims, now, wanted.ttl_seconds)

    def renewed(self, caller: Caller, key: SubjobKey, lease_seconds: float) -> MintedToken | None:
        """Return a fresh token in place of a job's that has used up half of its time.

        Sooner if it would not outlast the lease; None where it is not time yet, or the token is
        none that renews itself. The fresh one is for the subjob `key`, and for no more than before.
        """
        token_claims = caller.token_claims
        if token_claims is None or caller.role is not Role.JOB:
            return None
        now, ends_at = self._clock(), caller.expires_at
        ttl_seconds, left_seconds = ends_at - token_claims.issued_at, ends_at - now
        if left_seconds > lease_seconds and left_seconds > ttl_seconds / 2:
            return None
        if token_claims.ends_at <= ends_at:
            return None
        claims: dict[str, Any] = {
            "owner": caller.owner,
            "end": int(token_claims.ends_at),
            "root": token_claims.root_id,
            "from": list(token_claims.parents),
            **_scope_claims(caller.role, (key.workflow,), key.subjob),
        }
        if caller.binding is not None:
            claims["job"] = {"id": caller.binding.global_job_id, "start": caller.binding.job_starts}
        return self._signed(claims, now, ttl_seconds)

    def _signed(self, claims: dict[str, Any], now: float, ttl_seconds: float) -> MintedToken:
        expires_at = float(int(min(now + ttl_seconds, claims["end"])))
        token_id = secrets.token_hex(8)
        claims |= {
            "iss": ISSUER,
            "aud": ISSUER,
            # To the millisecond: revocations reach up to an instant.
            "iat": round(now, 3),
            "exp": int(expires_at),
            "jti": token_id,
        }
        key_id, key = self.keys.newest()
        headers = {"kid": key_id} if key_id else None
        text = jwt.encode(claims, key, algorithm=_ALGORITHM, headers=headers)
        return MintedToken(text, token_id, expires_at)


def numeric_date(value: Any) -> float:
    """Return an instant of a token, seconds since 1970 (RFC 7519 2); raises ValueError.

    JSON numbers have any size: what is no double is no instant.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no number")
    try:
        at = float(value)
    except OverflowError:
        at = math.inf
    if not math.isfinite(at):
        raise ValueError("no instant")
    return at


def _scope_claims(role: Role, workflows: tuple[str, ...], subjob: str | None) -> dict[str, Any]:
    """Return the claims that say what a token is good for."""
    if subjob is not None:
        return {"workflow": workflows[0], "subjob": subjob}
    if role is Role.WORKFLOW:
        return {"workflow": workflows[0]}
    return {"role": role.value, "workflows": list(workflows)}


def _caller_of(claims: dict[str, Any]) -> Caller:
    """Return what verified claims say; raises KeyError, ValueError, TypeError, InvalidField."""
    expires_at = numeric_date(claims["exp"])
    token_id = str(claims["jti"])
    token_claims = TokenClaims(
        token_id,
        str(claims.get("root", token_id)),
        numeric_date(claims["iat"]),
        numeric_date(claims.get("end", expires_at)),
        tuple(str(parent) for parent in claims.get("from", ())),
    )
    owner = str(claims.get("owner", "admin"))
    subjob = claims.get("subjob")
    if "role" in claims:
        role = role_named(claims["role"])
        workflows = tuple(str(pattern) for pattern in claims["workflows"])
        if "*" in workflows:
            workflows = EVERYWHERE
        actor = f"token:{token_id} ({role.value} {owner})"
    else:
        role = Role.WORKFLOW if subjob is None else Role.JOB
        workflows = (str(claims["workflow"]),)
        actor = f"token:{token_id}"
    bound = claims.get("job")
    binding = None if bound is None else Binding(bound["id"], bound["start"])
    return Caller(actor, role, workflows, subjob, expires_at, owner, binding, token_claims)


def why_not_mint(caller: Caller, wanted: TokenRequest) -> str | None:
    """Say why this caller may not make such a token, or None."""
    if wanted.name is not None and caller.role is not Role.ADMIN:
        return f"only the administrator says who {wanted.name} is; leave the name out"
    if wanted.role in MINTS[caller.role]:
        if all(is_within(caller.workflows, pattern) for pattern in wanted.workflows):
            return None
    return (
        f"{wanted.about} is made with the admin token, or a wider one than it; this one is for"
        f" {caller.scope}"
    )
