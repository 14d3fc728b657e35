"""The configuration file that an installation leaves: a seal, what the site chose, a role's text.

Pure. The seal is a digest of all below it, so that a file which somebody has edited is known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

_SEAL = re.compile(
    r"# htlease hooks install --role \w+, htlease (?P<version>\S+), sha256 (?P<digest>\w+)\n"
)
_CHOSEN = "# Chosen at installation, and kept by the next one:\n"
_SETTING = re.compile(r"(?P<name>HTLEASE_\w+) = (?P<value>.*)\n")


@dataclass(frozen=True)
class SiteFile:
    """What is in a configuration file of ours."""

    version: str
    settings: Mapping[str, str]
    #: Whether somebody has edited it since it was written.
    is_changed: bool


def render(role: str, version: str, settings: Mapping[str, str], text: str) -> str:
    """Return the file for a role; settings without a value are left out."""
    lines = [f"{name} = {value}\n" for name, value in settings.items() if value]
    body = "".join([_CHOSEN, *lines, "\n", text])
    return (
        f"# htlease hooks install --role {role}, htlease {version}, sha256 {_digest(body)}\n{body}"
    )


def parse(text: str) -> SiteFile | None:
    """Return what is in a file, or None when it was not written by an installation."""
    seal = _SEAL.match(text)
    if seal is None:
        return None
    body = text[seal.end() :]
    chosen = body.partition("\n\n")[0].removeprefix(_CHOSEN) + "\n"
    settings = {match["name"]: match["value"] for match in _SETTING.finditer(chosen)}
    return SiteFile(seal["version"], settings, _digest(body) != seal["digest"])


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
