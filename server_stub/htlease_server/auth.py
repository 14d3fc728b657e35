"""Who may do what: one admin token, and job tokens for one workflow or one subjob.

Job tokens are JWTs (HS256) under a key that only the server has. They grant nothing on the access
point (no cancel, no workflow changes) but narrower tokens that expire no later. Neither tokens nor
keys reach a log or an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from htlease import messages as m
from htlease.attempt import SubjobKey
from htlease.errors import BadConfig

_ISSUER = "htlease"
_ALGORITHM = "HS256"
TOKEN_TTL_MAX_SECONDS = 366 * 86400.0
_VERIFIED_MAX = 20_000

_FENCED_BY_JOB = (m.Renew, m.Enter, m.Complete, m.Fail, m.Exited, m.Abandon)
_BY_WORKFLOW = (*_FENCED_BY_JOB, m.Enroll, m.Ended, m.Commit, m.Settle)


@dataclass(frozen=True)
class Caller:
    """Whoever a request comes from, and what a token lets them do."""

    #: As the history records it: admin, anonymous, or `token:` and the token's ID.
    actor: str
    is_admin: bool
    #: What a job token is confined to; subjob None means all of the workflow.
    workflow: str | None = None
    subjob: str | None = None
    expires_at: float = float("inf")

    def may_see(self, workflow: str, subjob: str | None = None) -> bool:
        """Tell whether a workflow (subjob None) or a subjob is within reach."""
        if self.is_admin:
            return True
        return workflow == self.workflow and self.subjob in (None, subjob)

    def why_not(self, key: SubjobKey, command: m.Command) -> str | None:
        """Say why a command is forbidden, or None when it is allowed."""
        if self.is_admin:
            return None
        if not self.may_see(key.workflow, key.subjob):
            return f"this token is for {self.scope}, not for {key}"
        kinds = ("job",) if self.subjob else ("job", "pre", "post")
        allowed = _FENCED_BY_JOB if self.subjob else _BY_WORKFLOW
        if isinstance(command, m.Acquire):
            if command.kind in kinds:
                return None
            return f"this token is for {self.scope} and acquires as {', '.join(kinds)} only"
        if isinstance(command, allowed):
            return None
        return f"this token is for {self.scope}; {type(command).__name__.lower()} needs a wider one"

    def why_no_token(self, workflow: str, subjob: str | None) -> str | None:
        """Say why this caller may not mint a token, or None: a wider token makes narrower ones."""
        if self.is_admin or (
            subjob is not None and self.subjob is None and workflow == self.workflow
        ):
            return None
        what = f"{workflow}/{subjob}" if subjob else f"all of {workflow}"
        return (
            f"minting a token for {what} needs the admin token, or one for the whole workflow to"
            f" mint for its subjobs; this one is for {self.scope}"
        )

    @property
    def scope(self) -> str:
        """What a job token is for, as people write it."""
        return f"{self.workflow}/{self.subjob}" if self.subjob else f"workflow {self.workflow}"


ANONYMOUS = Caller("anonymous", is_admin=True)
ADMIN = Caller("admin", is_admin=True)


class Gate:
    """Tells callers by their bearer token; `clock` gives seconds since 1970."""

    def __init__(self, admin_token: str, signing_key: bytes, clock: Callable[[], float]) -> None:
        self._admin_digest = _digest(b"Bearer " + admin_token.encode())
        self._signing_key = signing_key
        self._clock = clock
        #: Digest of the header -> caller, for tokens whose signature has been verified.
        self._verified: dict[bytes, Caller] = {}

    def caller(self, authorization: bytes | None) -> Caller | str:
        """Return the caller, or why the header lets nobody in."""
        if authorization is None:
            return "no token was sent; send `Authorization: Bearer TOKEN`"
        digest = _digest(authorization)
        known = self._verified.get(digest)
        if known is not None:
            if self._clock() < known.expires_at:
                return known
            del self._verified[digest]
            return "the token has expired; mint a new one"
        if hmac.compare_digest(digest, self._admin_digest):
            return ADMIN
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return "the Authorization header is not of the form `Bearer TOKEN`"
        caller = self._verify(token.strip())
        if isinstance(caller, Caller):
            if len(self._verified) >= _VERIFIED_MAX:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = caller
        return caller

    def _verify(self, token: bytes) -> Caller | str:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._signing_key,
                algorithms=[_ALGORITHM],
                audience=_ISSUER,
                issuer=_ISSUER,
                options={
                    "require": ["exp", "iat", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            workflow, subjob, expires_at = (
                claims["workflow"],
                claims.get("subjob"),
                float(claims["exp"]),
            )
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
            return "the token is not one of this server's"
        if self._clock() >= expires_at:
            return "the token has expired; mint a new one"
        return Caller(f"token:{claims['jti']}", False, workflow, subjob, expires_at)

    def mint(
        self,
        workflow: str,
        subjob: str | None,
        ttl_seconds: float,
        not_after: float = float("inf"),
    ) -> tuple[str, float]:
        """Return a new job token and the instant at which it expires, `not_after` at the latest."""
        issued_at = self._clock()
        expires_at = float(int(min(issued_at + ttl_seconds, not_after)))
        claims = {
            "iss": _ISSUER,
            "aud": _ISSUER,
            "iat": int(issued_at),
            "exp": int(expires_at),
            "jti": secrets.token_hex(8),
            "workflow": workflow,
        }
        if subjob is not None:
            claims["subjob"] = subjob
        return jwt.encode(claims, self._signing_key, algorithm=_ALGORITHM), expires_at


class OpenGate(Gate):
    """Lets everybody in, for a server that was started without authentication on loopback.

    It still mints tokens, under a key that nobody keeps, so that clients need no second way.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(secrets.token_urlsafe(32), secrets.token_bytes(32), clock)

    def caller(self, authorization: bytes | None) -> Caller | str:
        """Return a caller that may do anything."""
        return ANONYMOUS


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def read_or_make_secret(path: Path, what: str) -> str:
    """Return the secret in a file that only its owner can read; make it when it is absent."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read_secret(path, what)
    except OSError as problem:
        raise BadConfig(
            f"{what} {path} cannot be made: {problem.strerror}; make its directory writable, or"
            " name another file"
        ) from problem
    secret = secrets.token_urlsafe(32)
    with os.fdopen(fd, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def _read_secret(path: Path, what: str) -> str:
    try:
        mode = path.stat().st_mode
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadConfig(f"{what} {path} cannot be read: {problem}") from problem
    if stat.S_IMODE(mode) & 0o077:
        raise BadConfig(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(mode):04o}); run"
            f" `chmod 600 {path}`, and remove it to get a new one if others may have seen it"
        )
    if len(secret) < 16:
        raise BadConfig(f"{what} {path} is empty or too short; remove it to get a new one")
    return secret
