"""WLCG bearer-token discovery, as every client here does it; stdlib only.

The steps in their order: `BEARER_TOKEN`, the file that `BEARER_TOKEN_FILE` names,
`$XDG_RUNTIME_DIR/bt_u$ID`, `/tmp/bt_u$ID`, where ID is the effective user's. White space around a
token is no part of it (C's `isspace`, no more); what is empty or not there leaves it to the next
step, what is there and no token ends the search with an error. Source: WLCG Bearer Token Discovery,
https://github.com/WLCG-AuthZ-WG/bearer-token-discovery.

Two things more: a file in a directory where others may write counts only if it is the user's own
or root's, so that nobody can put their token into our hands; and only regular files are read.
"""

from __future__ import annotations

import os
import stat

from htlease.errors import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BLANKS = " \t\n\v\f\r"
TOKEN_MAX_BYTES = 64 * 1024
_SHARED_DIRECTORY = "/tmp"


def discovered(
    environ: Mapping[str, str], uid: int, shared_directory: str = _SHARED_DIRECTORY
) -> tuple[str, str] | None:
    """Return where the token was found and the token, or None; raises BadConfig."""
    for found_at, text in _steps(environ, uid, shared_directory):
        if text:
            return found_at, checked_token(text, found_at)
    return None


def token_in(path: str, owners: tuple[int, ...] | None = None) -> str:
    """Return the token in a file, unchecked; empty when there is no file, or no token in it.

    With `owners` a file of somebody else's is none. Raises BadConfig for a file that is there and
    cannot be read as text.
    """
    try:
        if owners is not None and os.lstat(path).st_uid not in owners:
            return ""
        # Whatever else lies there in place of a file must not keep anybody waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise BadConfig(f"token file {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadConfig(f"token file {path} is no regular file")
            if owners is not None and status.st_uid not in owners:
                return ""
            return stripped(file.read(TOKEN_MAX_BYTES).decode("ascii"))
    except OSError as error:
        raise BadConfig(f"token file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadConfig(f"token file {path} holds no token: it is not ASCII text") from None


def stripped(text: str) -> str:
    """Return a text without the white space around it."""
    return text.strip(_BLANKS)


def can_travel(token: str) -> bool:
    """Tell whether a text can be a token in a header."""
    return bool(token) and all("!" <= char <= "~" for char in token)


def checked_token(token: str, found_at: str) -> str:
    """Return a token; raises BadConfig, without showing it, when it cannot travel in a header."""
    if not can_travel(token):
        raise BadConfig(f"{found_at} holds no token: there are blanks or other odd characters")
    return token


def _steps(
    environ: Mapping[str, str], uid: int, shared_directory: str
) -> Iterator[tuple[str, str]]:
    yield "BEARER_TOKEN", stripped(environ.get("BEARER_TOKEN", ""))
    named = environ.get("BEARER_TOKEN_FILE")
    if named:
        yield named, token_in(named)
    for directory in (environ.get("XDG_RUNTIME_DIR"), shared_directory):
        if directory:
            path = f"{directory}/bt_u{uid}"
            yield path, token_in(path, (uid, 0))
