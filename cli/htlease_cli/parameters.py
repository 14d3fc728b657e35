"""What commands accept: subjob keys, durations, and the options of every reading command."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from htlease.errors import InvalidField
from htlease.rules.attempt import SubjobKey, check_name

#: A hundred years: nothing here is meant to last longer, and clocks end.
_DAYS_MAX = 36_500
_SECONDS_IN = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Read `90s`, `15m`, `1h` or `7d` as seconds; raises InvalidField."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip(), re.ASCII)
    if match is None:
        raise InvalidField("duration", f"{text!r} is not one like 90s, 15m, 1h or 7d")
    seconds = float(match[1]) * _SECONDS_IN[match[2]]
    if not seconds:
        raise InvalidField("duration", f"{text!r} is no time at all")
    if seconds > _DAYS_MAX * _SECONDS_IN["d"]:
        raise InvalidField("duration", f"{text!r} is more than {_DAYS_MAX} days")
    return seconds


class _Parsed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A parameter that one of our functions reads; its complaint becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except InvalidField as error:
            self.fail(error.problem, param, ctx)


KEY = _Parsed("workflow/subjob", SubjobKey.parse)
DURATION = _Parsed("duration", parse_duration)
WORKFLOW = _Parsed("workflow", lambda text: check_name("workflow", text))
NAME = _Parsed("name", lambda text: check_name("name", text))

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Add `--json` to a command that reads."""
    return click.option("wants_json", "--json", is_flag=True, help="Print the document itself.")(
        command
    )
