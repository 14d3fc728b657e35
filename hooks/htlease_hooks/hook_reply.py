"""What a PREPARE hook answers HTCondor: attributes on stdout, and a code that says who is at fault.

The ranges of the codes are those of the OSPool's prepare hook, so that a site reads all its hooks
alike: 1-299 the job is held, 300-399 a lasting and 400-499 a passing fault of this execution
point, 500-599 a lasting and 600-699 a passing fault of a service outside; from 300 on the job goes
back to Idle. Source: `HookPrepareJobClient::hookExited`, measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

OK = 0
BAD_CONFIG = 171
BAD_CREDENTIAL = 172
NO_SERVER_HOLD = 173
SUPERSEDED = 174
CLOSED = 175
COMPLETE = 176
UNREADABLE_INPUT = 177
CHAIN_FAILED = 400
LEASE_STILL_LIVE = 601
NO_SERVER_IDLE = 602
OVERLOADED = 603
BLOCKED = 604

#: Makes HTCondor run nothing and see a job that ended with 0. Source: measured on 23.9.6 and
#: 25.14.1; without `TransferExecutable` the job is held.
NOTHING_TO_DO: Mapping[str, str] = {
    "Cmd": '"/bin/true"',
    "Args": '""',
    "Arguments": '""',
    "Environment": '""',
    "TransferExecutable": "false",
}
#: The same before the input is transferred, when it can also keep what earlier starts brought
#: back from being replaced.
NOTHING_TO_BRING_BACK: Mapping[str, str] = {
    **NOTHING_TO_DO,
    "TransferInput": '""',
    "TransferOutput": '""',
    "In": '"/dev/null"',
    "Out": '"/dev/null"',
    "Err": '"/dev/null"',
}
#: Longer ones make an event log unreadable.
_MESSAGE_MAX_CHARS = 500


@dataclass(frozen=True)
class Answer:
    """A hook's answer; code 0 lets the job start."""

    code: int = OK
    message: str = ""
    #: Further attributes of the starter's ad, as ClassAd expressions.
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """Return the exit status, which is never 0 for a refusal."""
        return 0 if self.code == OK else self.code % 100 or 100

    def text(self) -> str:
        """Return what goes to stdout."""
        attributes = dict(self.attributes)
        if self.code != OK:
            attributes["HookStatusCode"] = str(self.code)
            attributes["HookStatusMessage"] = quoted(self.message[:_MESSAGE_MAX_CHARS])
        return "".join(f"{name} = {value}\n" for name, value in attributes.items())

    def give(self) -> int:
        """Write the answer to stdout, and to stderr why, and return the exit status."""
        if self.message:
            say(self.message)
        _write(1, self.text())
        return self.exit_status


def say(text: str) -> None:
    """Write a line to stderr, which HTCondor keeps in the starter's log."""
    _write(2, f"htlease: {' '.join(text.split())}\n")


def pass_on(text: str) -> None:
    """Write to stdout what another hook answered."""
    if text:
        _write(1, text if text.endswith("\n") else f"{text}\n")


def _write(descriptor: int, text: str) -> None:
    data = text.encode(errors="surrogateescape")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        pass  # nobody reads it; the exit status still says what matters


def quoted(text: str) -> str:
    """Return a message as a ClassAd string.

    In the syntax that starter and hooks speak a backslash escapes nothing but a quote, so one
    before a quote could not be told from an escape. Source: measured on 23.9.6 and 25.14.1.
    """
    plain = " ".join(text.split()).replace("\\", "/")
    return '"' + plain.replace('"', '\\"') + '"'
