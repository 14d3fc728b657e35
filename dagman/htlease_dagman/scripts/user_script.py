"""The user's own script, run in ours as DAGMan would have run it."""

from __future__ import annotations

import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TERM_GRACE_SECONDS = 10.0
#: What a shell says of a program that it cannot start.
_NOT_STARTED = 127


class Ended(Exception):
    """The script was ended because it had lost its right to run."""


def run(argv: Sequence[str], is_lost: Callable[[], bool], every_seconds: float) -> int:
    """Run a script and return its exit status, 128 + N for signal N; raises Ended.

    `is_lost` is asked from time to time, and keeps the lease by that.
    """
    # DAGMan does not search PATH: a bare name is a file of the node's directory.
    program = argv[0] if "/" in argv[0] else f"./{argv[0]}"
    try:
        child = subprocess.Popen(argv, executable=program)
    except OSError as error:
        print(f"htlease: {program}: {error.strerror}", file=sys.stderr)
        return _NOT_STARTED
    while True:
        try:
            status = child.wait(every_seconds)
        except subprocess.TimeoutExpired:
            if is_lost():
                _end(child)
                raise Ended from None
        else:
            return 128 - status if status < 0 else status


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_TERM_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
