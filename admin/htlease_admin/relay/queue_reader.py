"""Reads queue and history in a process of its own.

HTCondor's bindings keep Python's lock while they wait (measured on 23.9.6 and 25.14.1), so that a
schedd that hangs would stop the whole relay, and with it the leases of all jobs that go through
its proxy. Here it only costs the process that waits, which is killed in time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from htlease.errors import HTLeaseError
from htlease_admin import schedd
from htlease_admin.schedd import Plain, ScheddUnavailable

JOBS_SECONDS = 20.0
#: The history of a busy access point is some gigabytes.
HISTORY_SECONDS = 300.0

Ads = list[dict[str, Plain]]


class QueueReader:
    """Reads from one schedd, for one thread at a time."""

    def __init__(self, schedd_name: str | None) -> None:
        """Prepare to read; None names the schedd of this machine."""
        self._schedd_name = schedd_name
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def read_jobs(self, constraint: str, attributes: Sequence[str]) -> Ads:
        """Do as `schedd.read_jobs`; raises ScheddUnavailable."""
        arguments = [constraint, list(attributes), self._schedd_name]
        return self._call("read_jobs", arguments, JOBS_SECONDS)

    def read_history(
        self, constraint: str, attributes: Sequence[str], until: str | None, most: int
    ) -> Ads:
        """Do as `schedd.read_history`; raises ScheddUnavailable."""
        arguments = [constraint, list(attributes), until, most, self._schedd_name]
        return self._call("read_history", arguments, HISTORY_SECONDS)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _call(self, name: str, arguments: list[Any], seconds: float) -> Ads:
        with self._one_at_a_time:
            line = self._exchange(json.dumps([name, arguments]), seconds)
        if not line:
            raise ScheddUnavailable(f"the schedd does not answer within {seconds:g} s")
        answer = json.loads(line)
        if "error" in answer:
            raise ScheddUnavailable(answer["error"])
        ads: Ads = answer["ads"]
        return ads

    def _exchange(self, request: str, seconds: float) -> str:
        """Return a line of answer; an empty one when there is none."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "htlease_admin.relay.queue_reader"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # A Ctrl-C is for the relay; this process ends with its standard input.
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
        if not line:
            self.close()
        return line


def main() -> None:
    """Answer the lines on stdin until there are no more: the relay has ended."""
    calls: dict[str, Callable[..., Ads]] = {
        "read_jobs": schedd.read_jobs,
        "read_history": schedd.read_history,
    }
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"ads": calls[name](*arguments)}
        except HTLeaseError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
