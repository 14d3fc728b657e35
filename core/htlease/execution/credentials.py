"""Finding the token: WLCG bearer-token discovery, preceded by what HTCondor hands to a job.

A token that the server gave in its place, before it ran out, is kept in the sandbox for the other
processes of the start (mode 0600). Tokens are in no argv and no message; those name the place.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htlease.condor import chirp
from htlease.condor.job_ad import read_ad
from htlease.condor.private_files import owners_in, read_own, replace_own
from htlease.execution.sandbox_state import FOLDER, HOOKS_FOLDER
from htlease.json_text import json_from
from htlease.wire import bearer

#: Where an access point keeps the token of a job that brings none; only chirp can read it.
TOKEN_ATTRIBUTE = "_condor_priv_HTLeaseToken"
#: In the private folders of wrapper and hooks: the token that the server gave last.
_RENEWED = "renewed-token"
#: A token among the input files of a job.
BROUGHT_TOKEN = "htlease.token"


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
            claims = json_from(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
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
        text = _kept(folder / _RENEWED)
        if text and (token is None or token.is_followed_by(Token(text, str(folder)))):
            token = Token(bearer.checked_token(text, str(folder)), str(folder))
    return token


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


def renewed_token(answer: Mapping[str, Any]) -> Token | None:
    """Return the token that came with the answer to a renewal, if one did."""
    text = answer.get("token")
    return Token(text, "a renewal") if isinstance(text, str) and bearer.can_travel(text) else None


def keep_renewed(folder: Path, token: Token) -> None:
    """Keep a token in the private folder of a wrapper or of hooks; raises OSError."""
    replace_own(folder / _RENEWED, token.text.encode("ascii"))


def _discovered(environ: Mapping[str, str], sandbox: Path, uid: int) -> Token | None:
    for path in _handed_over(environ, sandbox):
        is_kept = path.parent.name == HOOKS_FOLDER
        text = _kept(path) if is_kept else bearer.token_in(str(path), _owners(path, uid))
        if text:
            return Token(bearer.checked_token(text, str(path)), str(path))
    found = bearer.discovered(environ, uid)
    return Token(found[1], found[0]) if found else None


def _handed_over(environ: Mapping[str, str], sandbox: Path) -> Iterator[Path]:
    """Return where HTCondor, or a hook of ours, leaves a token for the job."""
    credentials = environ.get("_CONDOR_CREDS")
    if credentials:
        # HTCondor keeps this one fresh, so it comes first.
        yield Path(credentials) / "htlease.use"
    yield sandbox / BROUGHT_TOKEN
    yield Path(BROUGHT_TOKEN).absolute()
    yield sandbox / HOOKS_FOLDER / "token"
    ad = read_ad(Path(environ.get("_CONDOR_JOB_AD") or sandbox / ".job.ad"))
    named = ad.text("HTLeaseTokenFile") if ad else None
    if named:
        yield Path(named)  # of a job to which no files are transferred


def _owners(path: Path, uid: int) -> tuple[int, ...] | None:
    """Return whose tokens count in a folder where others may write; None: it is HTCondor's."""
    if path.name != BROUGHT_TOKEN:
        return None
    try:
        return (uid, *owners_in(path.parent))
    except OSError:
        return (uid,)


def _kept(path: Path) -> str:
    """Return the token that a process of ours has left, or nothing."""
    try:
        return bearer.stripped(read_own(path, bearer.TOKEN_MAX_BYTES).decode("ascii"))
    except (OSError, UnicodeDecodeError):
        return ""
