"""Becoming the payload, as if there were no wrapper; this file parses on any Python 3."""

import os
import sys
from collections.abc import Mapping, Sequence


def given_environment() -> "Mapping[bytes, bytes]":
    """Return the environment as this process was given it.

    Python sets LC_CTYPE in the C locale (PEP 538); the payload shall not see that.
    """
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123
            entries = file.read().split(b"\0")
    except OSError:
        return os.environb
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def become(command: "Sequence[str]") -> int:
    """Be replaced by the payload; returns, with its exit status, only if that cannot be done."""
    import signal  # late: before the wrapper isolates itself, a job's PYTHONPATH may shadow it

    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, which an exec would pass on
    try:
        os.execvpe(command[0], list(command), given_environment())
    except (IndexError, FileNotFoundError) as error:
        sys.stderr.write("htlease: cannot run the payload: %s\n" % error)  # noqa: UP031
        return 127
    except OSError as error:
        sys.stderr.write("htlease: cannot run the payload: %s\n" % error)  # noqa: UP031
        return 126
