"""The file of `--auth-config`: whose tokens are accepted besides ours, and as what. Pure but for
reading it.

```toml
audience = ["https://lease.example.org"]    # a token must name one of them
keys_refresh_seconds = 3600                 # optional: how often issuers are asked for their keys
keys_max_age_seconds = 345600               # optional: how long keys count when nobody answers

[[issuer]]
url = "https://token.example.org"           # exactly the `iss` of its tokens; others are refused
ca_file = "/etc/htlease/issuer-ca.pem"      # optional

[[issuer.grant]]                            # the first one that fits says what a token is good for
scope = "compute.create"                    # scope, group (wlcg.groups) and subject: all that are
group = "/example/production"               # named have to fit
role = "submitter"                          # operator, submitter or reader
workflows = ["prod-*"]                      # optional; else all, of a submitter its own
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from htlease.config.toml import toml_from
from htlease.errors import BadConfig, InvalidField
from htlease_server.auth.principal import EVERYWHERE, check_pattern
from htlease_server.auth.roles import Role, role_named

KEYS_REFRESH_SECONDS = 3600.0
#: A weekend and a day: what an issuer may be away without a site noticing.
KEYS_MAX_AGE_SECONDS = 4 * 86400.0
_ROLES = (Role.OPERATOR, Role.SUBMITTER, Role.READER)


@dataclass(frozen=True)
class Grant:
    """What a token is good for that has all that is named here."""

    role: Role
    workflows: tuple[str, ...]
    scope: str | None = None
    group: str | None = None
    subject: str | None = None

    def fits(self, claims: Mapping[str, Any]) -> bool:
        """Tell whether a token's claims have all that is named."""
        if self.subject not in (None, claims.get("sub")):
            return False
        if self.scope is not None and self.scope not in _words(claims.get("scope")):
            return False
        groups = claims.get("wlcg.groups")
        return self.group is None or (isinstance(groups, list) and self.group in groups)


@dataclass(frozen=True)
class Issuer:
    """One issuer whose tokens are accepted."""

    #: Without a slash at the end.
    url: str
    audience: tuple[str, ...]
    grants: tuple[Grant, ...]
    ca_file: Path | None = None

    def grant_for(self, claims: Mapping[str, Any]) -> Grant | None:
        """Return the first grant that fits, or None."""
        return next((grant for grant in self.grants if grant.fits(claims)), None)


@dataclass(frozen=True)
class AuthConfig:
    """What the file says."""

    issuers: tuple[Issuer, ...]
    keys_refresh_seconds: float = KEYS_REFRESH_SECONDS
    keys_max_age_seconds: float = KEYS_MAX_AGE_SECONDS


def read_auth_config(path: Path) -> AuthConfig:
    """Read the file; raises BadConfig naming it and what is wrong."""
    try:
        return auth_config_from(toml_from(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadConfig(f"auth config {path}: {why}") from None
    except InvalidField as error:
        raise BadConfig(f"auth config {path}: {error}") from None


def auth_config_from(document: Mapping[str, Any]) -> AuthConfig:
    """Return what a document says; raises InvalidField."""
    known = ("audience", "keys_refresh_seconds", "keys_max_age_seconds", "issuer")
    _check_names("", document, known)
    audience = _texts(document, "audience")
    if not audience:
        raise InvalidField("audience", "is missing; name what tokens for this server are for")
    tables = document.get("issuer")
    if not isinstance(tables, list) or not tables:
        raise InvalidField("issuer", "there is none; write an [[issuer]] table for each")
    issuers = tuple(_issuer(f"issuer {n}", table, audience) for n, table in enumerate(tables, 1))
    if len({issuer.url for issuer in issuers}) < len(issuers):
        raise InvalidField("issuer", "one URL stands there twice; put its grants together")
    refresh = _seconds(document, "keys_refresh_seconds", KEYS_REFRESH_SECONDS)
    max_age = _seconds(document, "keys_max_age_seconds", KEYS_MAX_AGE_SECONDS)
    if max_age < refresh:
        raise InvalidField(
            "keys_max_age_seconds", "is less than keys_refresh_seconds, so keys would come and go"
        )
    return AuthConfig(issuers, refresh, max_age)


def _issuer(where: str, table: Any, audience: tuple[str, ...]) -> Issuer:
    _check_names(where, table, ("url", "audience", "ca_file", "grant"))
    url = table.get("url")
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme != "https" or not parts.hostname or parts.query:
        raise InvalidField(f"{where}.url", f"{url!r} is not https://HOST[:PORT][/PATH]")
    grants = table.get("grant")
    if not isinstance(grants, list) or not grants:
        raise InvalidField(f"{where}.grant", "there is none; write [[issuer.grant]] tables")
    ca_file = table.get("ca_file")
    return Issuer(
        str(url).rstrip("/"),
        _texts(table, "audience") or audience,
        tuple(_grant(f"{where}, grant {n}", grant) for n, grant in enumerate(grants, 1)),
        None if ca_file is None else Path(str(ca_file)),
    )


def _grant(where: str, table: Any) -> Grant:
    _check_names(where, table, ("scope", "group", "subject", "role", "workflows"))
    conditions = {name: table.get(name) for name in ("scope", "group", "subject")}
    for name, value in conditions.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise InvalidField(f"{where}.{name}", f"{value!r} is no text")
    if not any(conditions.values()):
        raise InvalidField(where, "names none of scope, group and subject: anybody would fit")
    role = role_named(table.get("role", ""))
    if role not in _ROLES:
        names = ", ".join(role.value for role in _ROLES)
        raise InvalidField(f"{where}.role", f"{role.value!r} is not one of {names}")
    workflows = tuple(map(check_pattern, _texts(table, "workflows")))
    if "workflows" not in table and role is not Role.SUBMITTER:
        workflows = EVERYWHERE
    return Grant(role, EVERYWHERE if "*" in workflows else workflows, **conditions)


def _check_names(where: str, table: Any, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise InvalidField(where, "is no table")
    for name in table:
        if name not in known:
            place = f"{where}.{name}" if where else name
            raise InvalidField(place, f"is not known; there are {', '.join(known)}")


def _texts(table: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = table.get(name, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise InvalidField(name, f"{value!r} is no text and no list of texts")
    return tuple(texts)


def _seconds(table: Mapping[str, Any], name: str, default: float) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise InvalidField(name, f"{value!r} is no number of seconds")
    return float(value)


def _words(value: object) -> list[str]:
    return value.split(" ") if isinstance(value, str) else []
