"""The macros by which a site sets its hooks up, and which values each takes; pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping

from htlease.errors import BadConfig, InvalidField
from htlease.rules.plan import check_ttl, seconds_from
from htlease.wire.transport import CHIRP_URL, HttpTransport
from htlease_cli.doctor.checks import OK, PROBLEM, WARNING, Check

#: Same words as the hooks' own, `htlease_hooks.options.POLICIES`.
_POLICIES = ("run", "idle", "hold")
_BOOLEANS = ("true", "false", "t", "f", "yes", "no", "y", "n", "1", "0")


def _url(text: str) -> None:
    if text != CHIRP_URL:
        # Refuses a URL to which no job would give its token.
        HttpTransport(text, "any-token")


def _ttl(text: str) -> None:
    check_ttl(_wait(text))


def _wait(text: str) -> float:
    seconds = seconds_from(text)
    if seconds is None:
        raise InvalidField("value", "is not a number of seconds, such as 300")
    return seconds


def _interval(text: str) -> None:
    if not _wait(text):
        raise InvalidField("value", "is no time at all")


def _policy(text: str) -> None:
    if text not in _POLICIES:
        raise InvalidField("value", f"is not one of {', '.join(_POLICIES)}")


def _boolean(text: str) -> None:
    if text.lower() not in _BOOLEANS:
        raise InvalidField("value", "is neither True nor False")


def _path(text: str) -> None:
    if not text.startswith("/"):
        raise InvalidField("value", "is not an absolute path")


def _address(text: str) -> None:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 65536):
        raise InvalidField("value", "is not ADDRESS:PORT")


def _word(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", text, re.ASCII):
        raise InvalidField("value", "is not one word")


def _any(text: str) -> None:
    pass


#: Macro -> what looks at its value, and raises InvalidField or BadConfig.
CHECKED: Mapping[str, Callable[[str], object]] = {
    "HTLEASE_ADMIN_TOKEN_FILE": _path,
    "HTLEASE_CHAIN": _word,
    "HTLEASE_HOOK_DIR": _path,
    "HTLEASE_JOB_URL": _url,
    "HTLEASE_ON_NO_SERVER": _policy,
    "HTLEASE_PROTECTED_ATTRS": _any,
    "HTLEASE_AGENT": _path,
    "HTLEASE_AGENT_LISTEN": _address,
    "HTLEASE_AGENT_LOG": _path,
    "HTLEASE_AGENT_SOCKET": _path,
    "HTLEASE_AGENT_USERID": _word,
    "HTLEASE_STAMP_HOOK_KEYWORD": _boolean,
    "HTLEASE_TTL": _ttl,
    "HTLEASE_UPDATE_INTERVAL": _interval,
    "HTLEASE_URL": _url,
    "HTLEASE_WAIT_FLAG": _wait,
    "HTLEASE_WAIT_LEASE": _wait,
    "HTLEASE_WAIT_SERVER": _wait,
    "HTLEASE_WRAP_JOBS": _boolean,
}
#: Read by HTCondor itself, for one file of ours or another.
_OF_HTCONDOR = re.compile(
    r"HTLEASE(_ROUTER)?_(HOOK_\w+|ATTRS_TO_COPY)"
    r"|HTLEASE_(AGENT_\w+|ARGS|ENVIRONMENT|LISTEN|LOG|SERVE_OPTIONS|STATE_DIR|USERID)"
)


def check_setting(name: str, value: str, known: Iterable[str]) -> None:
    """Raise BadConfig unless `known` has the macro, and it takes the value.

    What other macros of HTCondor go into is judged where it is known what they come to.
    """
    names = sorted(known)
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise BadConfig(f"nothing here reads {name}; {advice}")
    fault = None if "$" in value or not value else fault_of(name, value)
    if fault is not None:
        raise BadConfig(fault)


def fault_of(name: str, value: str) -> str | None:
    """Say what is wrong with a macro's value, or None."""
    try:
        CHECKED[name](value)
    except InvalidField as error:
        return f"{name} = {value}: {error.problem}"
    except BadConfig as error:
        return f"{name}: {error}"
    return None


def macro_checks(values: Mapping[str, str], defined: Iterable[str]) -> list[Check]:
    """Judge what the macros come to, and the names of all that begin as ours do.

    A name of the site's own is left alone unless it looks like a slip of the pen.
    """
    faults = [
        fault
        for name in CHECKED
        if name in values and (fault := fault_of(name, values[name])) is not None
    ]
    checks = [
        Check(
            "macro",
            PROBLEM,
            fault,
            "set it right (`htlease hooks install --set NAME=VALUE`), then condor_reconfig",
        )
        for fault in faults
    ]
    for name in sorted(defined):
        close = difflib.get_close_matches(name, CHECKED, 1, cutoff=0.85)
        if name not in CHECKED and not _OF_HTCONDOR.fullmatch(name) and close:
            checks.append(
                Check("macro", WARNING, f"nothing reads {name}", f"did you mean {close[0]}?")
            )
    return checks or [Check("macros", OK, "each has a value that it takes")]
