"""Calls HTCondor's Python bindings in a process of its own, which is killed when it takes too long.

The bindings keep Python's lock while they wait for a daemon, some calls wait without any limit,
and `history()` of 23.9.6 ends the interpreter by SIGSEGV when its schedd is down (measured on
23.9.6 and 25.14.1). Here each of these costs the one call and not its caller.
"""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from htlease.errors import BadConfig, HTLeaseError
from htlease_admin import schedd, startd
from htlease_admin.schedd import ActionRefused, Plain, ScheddUnavailable

JOBS_SECONDS = 20.0
#: The history of a busy access point is some gigabytes.
HISTORY_SECONDS = 300.0
ACT_SECONDS = 60.0

Ads = list[dict[str, Plain]]

#: What may be called, by name.
_CALLS: Mapping[str, Callable[..., Any]] = {
    "read_jobs": schedd.read_jobs,
    "read_history": schedd.read_history,
    "read_knobs": schedd.read_knobs,
    "hold": schedd.hold,
    "release": schedd.release,
    "read_slots": startd.read_slots,
    "read_job_log": startd.read_job_log,
}
#: What a call may raise; by name over the pipe.
_ERRORS = {cls.__name__: cls for cls in (ActionRefused, BadConfig, ScheddUnavailable)}


class BindingsProcess:
    """One helper process, for one call at a time; started when needed, and again after a kill."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def call(self, name: str, arguments: Sequence[Any], seconds: float, whom: str) -> Any:
        """Return what the function returns; raises what it raises, or ScheddUnavailable."""
        with self._one_at_a_time:
            line, status = self._exchange(json.dumps([name, arguments]), seconds)
        if not line:
            how = f"does not answer within {seconds:g} s"
            if status not in (None, 0, -signal.SIGKILL):
                how = f"cannot be asked: HTCondor's bindings ended with status {status}"
            raise ScheddUnavailable(f"{whom} {how}")
        answer = json.loads(line)
        if "error" in answer:
            raise _ERRORS.get(answer["error"], HTLeaseError)(answer["text"])
        return answer["value"]

    def close(self) -> int | None:
        """End the process and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        return process.wait()

    def _exchange(self, request: str, seconds: float) -> tuple[str, int | None]:
        """Return a line of answer; without one the exit status of the process."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "htlease_admin.bindings_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # A Ctrl-C is for the caller; this process ends with its standard input.
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        too_late = threading.Timer(seconds, process.kill)
        too_late.start()
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            too_late.cancel()
        return line, None if line else self._ended()

    def _ended(self) -> int | None:
        process = self._process
        if process is None:
            return None
        try:
            status: int | None = process.wait(1.0)
        except subprocess.TimeoutExpired:
            status = None
        self.close()
        return status


@functools.cache
def _for_commands() -> BindingsProcess:
    """Return the process that all calls of one command share; it ends with the command."""
    return BindingsProcess()


def _whose(name: str | None) -> str:
    return f"the schedd {name}" if name else "the schedd"


def read_jobs(constraint: str, attributes: Sequence[str], name: str | None = None) -> Ads:
    """Do as `schedd.read_jobs`, within JOBS_SECONDS; raises ScheddUnavailable."""
    arguments = [constraint, list(attributes), name]
    ads: Ads = _for_commands().call("read_jobs", arguments, JOBS_SECONDS, _whose(name))
    return ads


def read_history(
    constraint: str,
    attributes: Sequence[str],
    until: str | None,
    most: int,
    name: str | None = None,
) -> Ads:
    """Do as `schedd.read_history`, within HISTORY_SECONDS; raises ScheddUnavailable."""
    arguments = [constraint, list(attributes), until, most, name]
    ads: Ads = _for_commands().call("read_history", arguments, HISTORY_SECONDS, _whose(name))
    return ads


def hold(jobs: Sequence[str], reason: str, subcode: int, name: str | None = None) -> None:
    """Do as `schedd.hold`; raises ActionRefused or ScheddUnavailable."""
    arguments = [list(jobs), reason, subcode, name]
    _for_commands().call("hold", arguments, ACT_SECONDS, _whose(name))


def release(jobs: Sequence[str], reason: str, name: str | None = None) -> None:
    """Do as `schedd.release`; raises ActionRefused or ScheddUnavailable."""
    _for_commands().call("release", [list(jobs), reason, name], ACT_SECONDS, _whose(name))


def main() -> None:
    """Answer the lines on stdin until there are no more: the caller has ended."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"value": _CALLS[name](*arguments)}
        except HTLeaseError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
