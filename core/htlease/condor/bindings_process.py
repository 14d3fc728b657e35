"""Calls HTCondor's Python bindings in a process of its own, which is killed when it takes too long.

The bindings keep Python's lock while they wait for a daemon, some calls wait without any limit,
and `history()` of 23.9.6 ends the interpreter by SIGSEGV when its schedd is down (measured on
23.9.6 and 25.14.1). Here each of these costs the one call and not its caller.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from htlease.condor import schedd, startd
from htlease.condor.job_event import JobEvent
from htlease.condor.schedd import AccessPoint, ActionRefused, Plain, QueuedJob, ScheddUnavailable
from htlease.errors import BadConfig, HTLeaseError

JOBS_SECONDS = 20.0
#: A busy collector may take some seconds, and the schedd then as long again.
LOCATE_SECONDS = 30.0
#: A log may lie on a file system that hangs.
LOG_SECONDS = 20.0
#: The history of a busy access point is some gigabytes.
HISTORY_SECONDS = 300.0
ACT_SECONDS = 60.0

Ads = list[dict[str, Plain]]

#: What may be called, by name.
_CALLS: Mapping[str, Callable[..., Any]] = {
    "locate": schedd.locate,
    "queue_birthdate": schedd.queue_birthdate,
    "jobs_of_submission": schedd.jobs_of_submission,
    "remove_submission": schedd.remove_submission,
    "read_event_log": schedd.read_event_log,
    "read_jobs": schedd.read_jobs,
    "read_history": schedd.read_history,
    "read_knobs": schedd.read_knobs,
    "hold": schedd.hold,
    "release": schedd.release,
    "read_slots": startd.read_slots,
    "read_job_log": startd.read_job_log,
}
#: What a call may raise; by name over the pipe.
_ERRORS = {cls.__name__: cls for cls in (ActionRefused, BadConfig, OSError, ScheddUnavailable)}


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
                [sys.executable, "-m", "htlease.condor.bindings_process"],
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


def locate(name: str | None = None) -> AccessPoint:
    """Do as `schedd.locate`, within LOCATE_SECONDS; raises BadConfig or ScheddUnavailable."""
    return AccessPoint(**_for_commands().call("locate", [name], LOCATE_SECONDS, _whose(name)))


def queue_birthdate(name: str | None = None) -> int | None:
    """Do as `schedd.queue_birthdate`, within LOCATE_SECONDS; raises ScheddUnavailable."""
    born_at: int | None = _for_commands().call(
        "queue_birthdate", [name], LOCATE_SECONDS, _whose(name)
    )
    return born_at


def jobs_of_submission(submission_id: str, name: str | None = None) -> list[QueuedJob]:
    """Do as `schedd.jobs_of_submission`, within JOBS_SECONDS; raises ScheddUnavailable."""
    arguments = [submission_id, name]
    jobs = _for_commands().call("jobs_of_submission", arguments, JOBS_SECONDS, _whose(name))
    return [QueuedJob(**job) for job in jobs]


def remove_submission(submission_id: str, reason: str, name: str | None = None) -> None:
    """Do as `schedd.remove_submission`, within ACT_SECONDS; raises ScheddUnavailable."""
    arguments = [submission_id, reason, name]
    _for_commands().call("remove_submission", arguments, ACT_SECONDS, _whose(name))


def read_event_log(path: Path, job: str) -> list[JobEvent]:
    """Do as `schedd.read_event_log`, within LOG_SECONDS; raises OSError or ScheddUnavailable."""
    arguments = [str(path), job]
    events = _for_commands().call("read_event_log", arguments, LOG_SECONDS, f"the log {path}")
    return [JobEvent(**event) for event in events]


def read_knobs(names: Sequence[str]) -> dict[str, str]:
    """Do as `schedd.read_knobs`, within JOBS_SECONDS; raises BadConfig or ScheddUnavailable."""
    knobs: dict[str, str] = _for_commands().call(
        "read_knobs", [list(names)], JOBS_SECONDS, "HTCondor's configuration"
    )
    return knobs


def should_transfer_default() -> str:
    """Return what `should_transfer_files` is where a submit file does not say it."""
    name = "SUBMIT_DEFAULT_SHOULD_TRANSFER_FILES"
    try:
        return read_knobs((name,)).get(name, "") or "IF_NEEDED"
    except (BadConfig, ScheddUnavailable):
        return "IF_NEEDED"


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
        except OSError as error:
            answer = {"error": "OSError", "text": error.strerror or str(error)}
        sys.stdout.write(json.dumps(answer, default=_as_plain) + "\n")
        sys.stdout.flush()


def _as_plain(value: Any) -> Any:
    """Return what JSON has no word for: our own records by field, HTCondor's values as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)


if __name__ == "__main__":
    main()
