"""Tokens of others, SciTokens and WLCG tokens: who sent them and what they are good for here.

PyJWT checks signatures; `docs/decisions` says why not the `scitokens` library. Issuers that are
not in the configuration are refused without a word to the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt

from htlease.errors import BadConfig
from htlease.rules import messages as m
from htlease_server.auth.issuer_config import AuthConfig, Issuer
from htlease_server.auth.job_tokens import UNREADABLE, numeric_date
from htlease_server.auth.jwks_cache import IssuerKeys, IssuerUnavailable
from htlease_server.auth.principal import Caller, TokenClaims

#: Clocks of issuers may be ahead of ours by this much.
LEEWAY_SECONDS = 60.0
RETRY_AFTER_SECONDS = 2.0
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_SCITOKEN_VERSIONS = ("scitoken:2.0", "scitokens:2.0")
_SUBJECT_MAX_CHARS = 250


class IssuerTokens:
    """Checks the tokens of all configured issuers; `clock` gives seconds since 1970."""

    def __init__(
        self,
        config: AuthConfig,
        directory: Path,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """Prepare; raises BadConfig without the packages for public keys."""
        if not jwt.algorithms.has_crypto:
            raise BadConfig(
                "tokens of issuers need a package that is not installed; install it with"
                " `pip install 'htlease[scitokens]'`"
            )
        self._clock = clock
        self._keys = {
            issuer.url: IssuerKeys(
                issuer, directory, config.keys_refresh_seconds, config.keys_max_age_seconds, changed
            )
            for issuer in config.issuers
        }

    def start(self) -> None:
        """Start to keep the issuers' keys fresh."""
        for keys in self._keys.values():
            keys.start()

    def stop(self) -> None:
        """End what `start` began."""
        for keys in self._keys.values():
            keys.stop()

    def verify(self, token: bytes) -> Caller | m.Rejection:
        """Return whose token it is, or why it is nobody's; never waits for anything."""
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except UNREADABLE:
            return _refused("the token is neither one of this server's nor a JWT of an issuer")
        header, claims = unverified["header"], unverified["payload"]
        keys = self._keys.get(str(claims.get("iss")).rstrip("/"))
        if keys is None:
            return _refused("the token is of an issuer that this server does not know")
        key_id = header.get("kid")
        try:
            key = keys.find(None if key_id is None else str(key_id))
        except IssuerUnavailable as away:
            return m.Rejection(
                "overloaded", f"{away}; come again", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        if key is None:
            return _refused(f"the token is signed by no key that {keys.issuer.url} has")
        try:
            # The key says by which algorithm, and never the token.
            jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],
                options={
                    "require": ["exp", "iss", "sub", "aud"],
                    # By this server's clock, below.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": False,
                },
            )
        except UNREADABLE:
            return _refused(f"the token's signature is not that of {keys.issuer.url}")
        return caller_from(header, claims, keys.issuer, self._clock())


def caller_from(
    header: Mapping[str, Any], claims: Mapping[str, Any], issuer: Issuer, now: float
) -> Caller | m.Rejection:
    """Return what verified claims make of their sender, or why nothing; pure."""
    why = _why_not(header, claims, issuer, now)
    if why is not None:
        return _refused(f"the token of {issuer.url} {why}")
    grant = issuer.grant_for(claims)
    if grant is None:
        return _refused(
            f"the token of {issuer.url} has no scope or group that is good for anything here"
        )
    owner = f"{issuer.url}/{claims['sub']}"
    return Caller(
        f"scitoken:{owner} ({grant.role.value})",
        grant.role,
        grant.workflows,
        expires_at=float(claims["exp"]),
        owner=owner,
        token_claims=_token_claims_of(claims),
    )


def _token_claims_of(claims: Mapping[str, Any]) -> TokenClaims | None:
    """Return by what the token can be revoked here, if it has an ID."""
    token_id, ends_at = claims.get("jti"), float(claims["exp"])
    if not isinstance(token_id, str) or not token_id:
        return None
    return TokenClaims(token_id, token_id, float(claims.get("iat", 0)), ends_at)


def _why_not(
    header: Mapping[str, Any], claims: Mapping[str, Any], issuer: Issuer, now: float
) -> str | None:
    kind = str(header.get("typ", "JWT")).lower()
    if kind not in _TYPES:
        return f"is of type {kind!r} and no access token"
    wlcg, scitoken = claims.get("wlcg.ver"), claims.get("ver")
    if not str(wlcg).startswith("1.") and scitoken not in _SCITOKEN_VERSIONS:
        return "is neither a WLCG token of version 1 nor a SciToken of version 2.0"
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not set(map(str, named)) & set(issuer.audience):
        return f"is not for this server, which is {', '.join(issuer.audience)}"
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT_MAX_CHARS:
        return "has no subject"
    if not subject.isprintable():
        return "has a subject that cannot be written down"
    times = {name: claims.get(name, 0) for name in ("exp", "nbf", "iat")}
    for name, at in times.items():
        try:
            numeric_date(at)
        except ValueError:
            return f"has a {name} that is no time"
    if now >= times["exp"]:
        return "has expired; get a new one"
    if now + LEEWAY_SECONDS < max(times["nbf"], times["iat"]):
        return "is not valid yet; is a clock wrong?"
    return None


def _refused(detail: str) -> m.Rejection:
    return m.Rejection("unauthorized", detail)
