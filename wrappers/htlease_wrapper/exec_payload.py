"""Becoming the payload, as if there were no wrapper; this file parses on any Python 3."""

import os
import signal
import sys

from htlease.execution.process_start import Entries, at_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def exec_payload(command: "Sequence[str]") -> int:
    """Be replaced by the payload; returns, with its exit status, only if that cannot be done."""
    start = at_start()
    for number in start.to_reset:
        signal.signal(number, signal.SIG_DFL)
    argv = absolute(command)
    try:
        os.execvpe(argv[0], argv, Entries(start.entries))
    except (IndexError, FileNotFoundError) as error:
        sys.stderr.write("htlease: cannot run the payload: %s\n" % error)  # noqa: UP031
        return 127
    except OSError as error:
        sys.stderr.write("htlease: cannot run the payload: %s\n" % error)  # noqa: UP031
        return 126


def absolute(command: "Sequence[str]") -> "list[str]":
    """Return a command that names its program as HTCondor does, by a full path.

    A script may change its directory and then look for its neighbours by `dirname "$0"`. What has
    no slash is found in PATH, and keeps its name.
    """
    argv = list(command)
    if argv and "/" in argv[0]:
        name = argv[0][2:] if argv[0].startswith("./") else argv[0]
        try:
            argv[0] = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
        except OSError:
            pass  # the current directory is gone
    return argv
