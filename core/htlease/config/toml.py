"""TOML, by whichever reader this Python has."""

from __future__ import annotations

import sys
from typing import Any

from htlease.errors import InvalidField


def toml_from(text: str) -> dict[str, Any]:
    """Return a document; raises InvalidField."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidField("TOML", str(error)) from None
    except RecursionError:
        raise InvalidField("TOML", "is nested too deeply") from None
    return document
