"""Where the lease server is and with which token to speak to it; runs on the access point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig
from htlease.wire import bearer

URL_DEFAULT = "http://127.0.0.1:8620"


@dataclass(frozen=True)
class Credential:
    """A bearer token and where it was found, for messages; the token is never printed."""

    token: str
    source: str


@dataclass(frozen=True)
class Connection:
    """What a command needs to reach the server."""

    url: str
    #: None when no token was found; the server then decides what it lets pass.
    credential: Credential | None


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return where htlease keeps its files for this user: `$XDG_STATE_HOME/htlease`."""
    base = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME', '/root')}/.local/state"
    return Path(base) / "htlease"


def find_connection(
    url: str | None, admin_token_file: Path | None, environ: Mapping[str, str], uid: int
) -> Connection:
    """Settle URL and token from options and environment; raises BadConfig.

    A token file that was named must be readable; the others are looked at in order: the admin
    token that `htlease serve` leaves in the state directory, then WLCG bearer token discovery.
    """
    url = url or environ.get("HTLEASE_URL") or URL_DEFAULT
    named = admin_token_file
    if named is None and environ.get("HTLEASE_ADMIN_TOKEN_FILE"):
        named = Path(environ["HTLEASE_ADMIN_TOKEN_FILE"])
    if named is not None:
        return Connection(url, _read_token(named))
    own = state_directory(environ) / "admin.token"
    if own.exists():
        return Connection(url, _read_token(own))
    found = bearer.discovered(environ, uid)
    return Connection(url, Credential(found[1], found[0]) if found else None)


def _read_token(path: Path) -> Credential:
    if not path.exists():
        raise BadConfig(
            f"token file {path} does not exist; name a readable one with --admin-token-file or "
            "HTLEASE_ADMIN_TOKEN_FILE"
        )
    token = bearer.token_in(str(path))
    if not token:
        raise BadConfig(f"token file {path} is empty; `htlease serve` writes a new admin token")
    return Credential(bearer.checked_token(token, str(path)), str(path))
