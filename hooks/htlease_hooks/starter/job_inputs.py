"""What a job brings along, as far as its ad says so before the input is there. Pure."""

from __future__ import annotations

import re

from htlease.execution.credentials import BROUGHT_TOKEN
from htlease_hooks.starter.environment import Unreadable, split_v2

_ATTRIBUTE = re.compile(r"^\s*(transferinput|arguments|args)\s*=\s*(.*\S)\s*$", re.M | re.I)
#: `/home/ann/htlease.token` in a list of files; `x-htlease.token` is another file.
_TOKEN = re.compile(rf"(?<![^\s,/\"']){re.escape(BROUGHT_TOKEN)}(?![^\s,\"'])")
_OPTIONS = ("--key", "--server")


def brings_token(ad_text: str) -> bool:
    """Tell whether a token is among a job's input files, be their list an expression."""
    return any(_TOKEN.search(text) for text in _values(ad_text, "transferinput"))


def wrapper_options(ad_text: str) -> dict[str, str]:
    """Return what the arguments of a wrapper say of subjob and server: `--key`, `--server`."""
    words: list[str] = []
    for name in ("arguments", "args"):
        for text in _values(ad_text, name):
            plain = text[1:-1].replace('\\"', '"')
            try:
                words = words or (split_v2(plain) if name == "arguments" else plain.split())
            except Unreadable:
                return {}
    return _named(words[: words.index("--")] if "--" in words else words)


def _named(words: list[str]) -> dict[str, str]:
    found = {}
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in _OPTIONS:
            following = words[number + 1 : number + 2]
            found[name] = value if equals else "".join(following)
    return found


def _values(ad_text: str, name: str) -> list[str]:
    return [value for known, value in _ATTRIBUTE.findall(ad_text) if known.lower() == name]
