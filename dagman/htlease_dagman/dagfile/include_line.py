"""The one line in a user's DAG file: put in and taken out again, byte for byte; pure."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: How the name of the included file ends.
ENDING = ".htlease.inc"
_LINE = rb"INCLUDE [^\r\n]+" + re.escape(ENDING.encode())
#: Our line with the line end that came with it: its own, or at a file's end the one before it.
_OURS = re.compile(rb"(?:\r?\n)?" + _LINE + rb"\Z|^" + _LINE + rb"\r?\n", re.MULTILINE)


def with_line(text: bytes, include: Path) -> bytes:
    """Return a DAG file that ends with INCLUDE of `include`, in its own style of line ends."""
    text = without_line(text)
    line = b"INCLUDE " + os.fsencode(include)
    last = text[: text.rfind(b"\n") + 1] or text
    line_end = b"\r\n" if last.endswith(b"\r\n") or text.endswith(b"\r") else b"\n"
    if text.endswith(b"\n"):
        return text + line + line_end
    return text + line_end + line


def without_line(text: bytes) -> bytes:
    """Return the file as it was before."""
    return _OURS.sub(b"", text)
