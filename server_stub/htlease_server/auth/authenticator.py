"""Tells callers by their bearer token: the administrator's, one of ours, or an issuer's."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from htlease.rules import messages as m
from htlease_server.auth.job_tokens import EXPIRED, NOT_OURS, OwnTokens
from htlease_server.auth.principal import ADMIN, ANONYMOUS, Caller
from htlease_server.auth.revocations import REVOKED, Revocations
from htlease_server.auth.signing_keys import FIRST, KeyRing
from htlease_server.store.base import AuditRow

if TYPE_CHECKING:
    from htlease_server.auth.scitokens import IssuerTokens

_VERIFIED_MAX = 20_000
_TOKEN_MAX_BYTES = 16 * 1024


class Authenticator:
    """Authenticates callers; `clock` gives seconds since 1970."""

    def __init__(self, admin_token: str, tokens: OwnTokens, clock: Callable[[], float]) -> None:
        self._admin_digest = _digest(admin_token.encode())
        self._clock = clock
        self.tokens = tokens
        #: Where the tokens of issuers are accepted, what checks them.
        self.issuers: IssuerTokens | None = None
        #: What is revoked, as far as this server has heard.
        self.revocations = Revocations()
        #: Digest of the header -> caller, for tokens whose signature has been verified.
        self._verified: dict[bytes, Caller] = {}

    def caller(self, authorization: bytes | None) -> Caller | m.Rejection:
        """Return the caller, or why the header authenticates nobody."""
        if authorization is None:
            return _unauthorized("no token was sent; send `Authorization: Bearer TOKEN`")
        digest = _digest(authorization)
        verified = self._verified
        known = verified.get(digest)
        if known is not None:
            if self._clock() < known.expires_at:
                return known
            verified.pop(digest, None)
            return _unauthorized(EXPIRED)
        # The scheme in any case, and blanks behind it (RFC 9110 11.1, 11.4; RFC 6750 2.1).
        scheme, _, token = authorization.partition(b" ")
        token = token.strip(b" \t")
        if scheme.lower() != b"bearer" or not 0 < len(token) <= _TOKEN_MAX_BYTES:
            return _unauthorized("the Authorization header is not of the form `Bearer TOKEN`")
        if hmac.compare_digest(_digest(token), self._admin_digest):
            return ADMIN
        caller: Caller | m.Rejection | str = self.tokens.verify(token)
        if caller is NOT_OURS and self.issuers is not None:
            caller = self.issuers.verify(token)
        if isinstance(caller, str):
            return _unauthorized(caller)
        if isinstance(caller, m.Rejection):
            return caller
        if self.revocations.is_revoked(caller):
            return _unauthorized(REVOKED)
        if len(verified) >= _VERIFIED_MAX:
            del verified[next(iter(verified))]
        verified[digest] = caller
        return caller

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._clock()

    def revoke(self, rows: Iterable[AuditRow]) -> None:
        """Authenticate nobody any more by the tokens that these audit entries revoke."""
        if self.revocations.add(rows):
            self.forget()

    def forget(self) -> None:
        """Verify every token anew: a key, or the right to use a token, may be gone."""
        # As a whole, since it is done from other threads; what is under way fills the old one.
        self._verified = {}


class NoAuth(Authenticator):
    """Lets everybody do anything: for a server on loopback, started without authentication.

    It still mints tokens, under a key that nobody keeps, so that clients need no second way.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        keys = KeyRing({FIRST: secrets.token_bytes(32)})
        super().__init__(secrets.token_urlsafe(32), OwnTokens(keys, clock), clock)

    def caller(self, authorization: bytes | None) -> Caller | m.Rejection:
        """Return a caller that may do anything."""
        return ANONYMOUS


def _unauthorized(detail: str) -> m.Rejection:
    return m.Rejection("unauthorized", detail)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
