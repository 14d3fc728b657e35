"""A job's environment as it stands in its ad, and `HTLEASE_*` added to it. Pure.

What PREPARE_JOB prints as `Environment` replaces all of it. HTCondor's two forms: `Environment`
holds `NAME=VALUE` separated by blanks, where single quotes protect blanks and, doubled, stand for
themselves (V2); the older `Env` separates by a character that no value can hold (V1), which
`EnvDelim` names. Source: the manual page of condor_submit, `environment`; measured on 23.9.6 and
25.14.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ATTRIBUTE = re.compile(r"^\s*(environment|env|envdelim)\s*=\s*(.*\S)\s*$", re.M | re.I)
_NEEDS_QUOTES = re.compile(r"[\s']")


class Unreadable(Exception):
    """A text in the ad cannot be read; the message says which."""


def job_environment(ad_text: str) -> dict[str, str]:
    """Return the environment that an ad gives to its job; raises Unreadable."""
    raw = {name.lower(): _plain(name, value) for name, value in _ATTRIBUTE.findall(ad_text)}
    if raw.get("environment"):
        entries = split_v2(raw["environment"])
    else:
        delimiter = raw.get("envdelim") or ";"
        entries = [entry for entry in raw.get("env", "").split(delimiter) if entry]
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def merged_attribute(environment: Mapping[str, str], added: Mapping[str, str]) -> str:
    """Return the ClassAd string that gives a job its environment and ours.

    Ours stand last: a backslash at the very end would hide the closing quote.
    """
    kept = {name: value for name, value in environment.items() if name not in added}
    text = " ".join(_quoted(f"{name}={value}") for name, value in {**kept, **added}.items())
    return '"' + text.replace('"', '\\"') + '"'


def split_v2(text: str) -> list[str]:
    """Split V2 syntax without its outer double quotes; raises Unreadable."""
    entries: list[str] = []
    entry: str | None = None
    place = 0
    while place < len(text):
        char = text[place]
        place += 1
        if char.isspace():
            if entry is not None:
                entries.append(entry)
            entry = None
        elif char != "'":
            entry = (entry or "") + char
        else:
            protected, place = _protected(text, place)
            entry = (entry or "") + protected
    if entry is not None:
        entries.append(entry)
    return entries


def _protected(text: str, place: int) -> tuple[str, int]:
    found = re.compile(r"((?:[^']|'')*)'").match(text, place)
    if found is None:
        raise Unreadable(f"a single quote is not closed after {text[: place - 1][-20:]!r}")
    return found[1].replace("''", "'"), found.end()


def _quoted(entry: str) -> str:
    return "'" + entry.replace("'", "''") + "'" if _NEEDS_QUOTES.search(entry) else entry


def _plain(name: str, value: str) -> str:
    if not (len(value) >= 2 and value[0] == value[-1] == '"'):
        raise Unreadable(f"{name} is no string but an expression")
    return value[1:-1].replace('\\"', '"')
