"""Finding the token: WLCG bearer-token discovery, preceded by what HTCondor hands to a job.

The token is never put into argv, messages or files of ours. Messages name where it was found.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from htlease.errors import BadConfig
from htlease_wrapper import chirp
from htlease_wrapper.sandbox import HOOKS_FOLDER

#: Where an access point keeps the token of a job that brings none; only chirp can read it.
TOKEN_ATTRIBUTE = "_condor_priv_HTLeaseToken"


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
        try:
            payload = self.text.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            workflow, subjob = claims["workflow"], claims.get("subjob")
        except (IndexError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if not isinstance(workflow, str) or not isinstance(subjob, (str, type(None))):
            return None
        return workflow, subjob


def find_token(environ: Mapping[str, str], sandbox: Path, uid: int) -> Token | None:
    """Return the first token that is there, in the order of discovery; None if there is none.

    Raises BadConfig, without showing it, for one that cannot travel in a header.
    """
    for found_at, text in _candidates(environ, sandbox, uid):
        token = (text or "").strip()
        if not token:
            continue
        if not all("!" <= char <= "~" for char in token):
            raise BadConfig(f"{found_at} holds no token: there are blanks or other odd characters")
        return Token(token, found_at)
    return None


def token_of_job(environ: Mapping[str, str], sandbox: Path, uid: int) -> Token | None:
    """Return the job's token: found, or else asked for by chirp, as the access point gave it.

    Raises BadConfig as `find_token` does.
    """
    found = find_token(environ, sandbox, uid)
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


def _from_file(path: Path) -> tuple[str, str | None]:
    try:
        return str(path), path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return str(path), None
