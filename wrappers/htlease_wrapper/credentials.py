"""Finding the token: WLCG bearer-token discovery, preceded by what HTCondor hands to a job.

A token that the server gave in its place, before it ran out, is kept in the sandbox for the other
processes of the start (mode 0600). Tokens are in no argv and no message; those name the place.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig
from htlease_wrapper import chirp
from htlease_wrapper.sandbox import FOLDER, HOOKS_FOLDER

#: Where an access point keeps the token of a job that brings none; only chirp can read it.
TOKEN_ATTRIBUTE = "_condor_priv_HTLeaseToken"
#: In the private folders of wrapper and hooks: the token that the server gave last.
_RENEWED = "renewed-token"


@dataclass(frozen=True)
class Token:
    """A bearer token and where it was found."""

    text: str = field(repr=False)
    found_at: str

    def scope(self) -> tuple[str, str | None] | None:
        """Return the workflow and, if limited to one, the subjob that the token is for.

        Read without checking the signature: a forged scope only names a key that the server then
        refuses.
        """
        claims = self._claims()
        workflow, subjob = claims.get("workflow"), claims.get("subjob")
        if not isinstance(workflow, str) or not isinstance(subjob, (str, type(None))):
            return None
        return workflow, subjob

    def is_followed_by(self, other: Token) -> bool:
        """Tell whether another token is for the same and lasts longer, by what both say."""
        ends, others = self._claims().get("exp"), other._claims().get("exp")
        if not isinstance(ends, (int, float)) or not isinstance(others, (int, float)):
            return False
        return self.scope() == other.scope() and ends < others

    def _claims(self) -> dict[str, Any]:
        try:
            payload = self.text.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (IndexError, ValueError):
            return {}
        return claims if isinstance(claims, dict) else {}


def find_token(
    environ: Mapping[str, str], sandbox: Path, uid: int, home: Path | None = None
) -> Token | None:
    """Return the first token that is there, in the order of discovery; None if there is none.

    What the server gave in its place is used instead; a wrapper keeps that in its `home`. Raises
    BadConfig, without showing it, for a token that cannot travel in a header.
    """
    token = _discovered(environ, sandbox, uid)
    for folder in ((home or sandbox) / FOLDER, sandbox / HOOKS_FOLDER):
        found_at, text = _from_file(folder / _RENEWED)
        if text and (token is None or token.is_followed_by(Token(text, found_at))):
            token = Token(text, found_at)
    return token


def renewed_token(answer: Mapping[str, Any]) -> Token | None:
    """Return the token that came with the answer to a renewal, if one did."""
    text = answer.get("token")
    return Token(text, "a renewal") if isinstance(text, str) and _can_travel(text) else None


def keep_renewed(folder: Path, token: Token) -> None:
    """Keep a token in the private folder of a wrapper or of hooks; raises OSError."""
    path = folder / _RENEWED
    temporary = path.with_name(f"{_RENEWED}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token.text)
    temporary.replace(path)


def _discovered(environ: Mapping[str, str], sandbox: Path, uid: int) -> Token | None:
    for found_at, text in _candidates(environ, sandbox, uid):
        token = (text or "").strip()
        if not token:
            continue
        if not _can_travel(token):
            raise BadConfig(f"{found_at} holds no token: there are blanks or other odd characters")
        return Token(token, found_at)
    return None


def token_of_job(
    environ: Mapping[str, str], sandbox: Path, uid: int, home: Path | None = None
) -> Token | None:
    """Return the job's token: found, or else asked for by chirp, as the access point gave it.

    Raises BadConfig as `find_token` does.
    """
    found = find_token(environ, sandbox, uid, home)
    if found is None and (config := chirp.config_path(environ, sandbox)):
        text = chirp.get_string(config, TOKEN_ATTRIBUTE)
        return Token(text, f"{TOKEN_ATTRIBUTE} of the job") if text else None
    return found


def _candidates(
    environ: Mapping[str, str], sandbox: Path, uid: int
) -> Iterator[tuple[str, str | None]]:
    credentials = environ.get("_CONDOR_CREDS")
    if credentials:
        # HTCondor keeps this one fresh, so it comes first.
        yield _from_file(Path(credentials) / "htlease.use")
    yield _from_file(sandbox / "htlease.token")
    yield _from_file(Path("htlease.token").absolute())
    yield _from_file(sandbox / HOOKS_FOLDER / "token")
    yield "BEARER_TOKEN", environ.get("BEARER_TOKEN")
    if environ.get("BEARER_TOKEN_FILE"):
        yield _from_file(Path(environ["BEARER_TOKEN_FILE"]))
    if environ.get("XDG_RUNTIME_DIR"):
        yield _from_file(Path(environ["XDG_RUNTIME_DIR"]) / f"bt_u{uid}")
    yield _from_file(Path(f"/tmp/bt_u{uid}"))


def _can_travel(token: str) -> bool:
    return bool(token) and all("!" <= char <= "~" for char in token)


def _from_file(path: Path) -> tuple[str, str | None]:
    try:
        return str(path), path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return str(path), None
