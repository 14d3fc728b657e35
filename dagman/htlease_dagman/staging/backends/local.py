"""The back-end for tools that copy while one waits (cp, rclone, xrdcp, gfal-copy, pelican).

The tool is a child of the watcher and ends with it; the next watcher runs it again from the start.
So it should be one that leaves out what is there already. Everything else waits, fails and is told
as with a service.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping

from htlease_dagman.staging.backends.command import ends_of, filled, list_of
from htlease_dagman.staging.transfer import NeedsPerson, Place, State, TaskStatus, Transfer

_END_SECONDS = 5.0


class RunBackend:
    """Runs one command for the whole transfer; what it says goes where the watcher's words go."""

    submits_once = True
    ends_with_watcher = True

    def __init__(self, command: tuple[str, ...], exits: Mapping[int, str]) -> None:
        self._command, self._exits = command, exits
        self._child: subprocess.Popen[bytes] | None = None
        self._id = ""

    def reserve(self, key: str) -> str | None:
        """Nothing: nobody else can have started it."""
        return None

    def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
        """Start the command."""
        argv = filled(self._command, ends_of(transfer))
        self.close()
        try:
            self._child = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=2, start_new_session=True
            )
        except OSError as error:
            raise NeedsPerson(f"make {argv[0]} runnable here: {error.strerror}") from None
        assert self._child.stdin is not None
        try:
            # Far less than a pipe takes at once, unless there are thousands of items.
            self._child.stdin.write(list_of(transfer).encode())
            self._child.stdin.close()
        except BrokenPipeError:
            pass  # the tool does not read the list
        self._id = f"process-{self._child.pid}"
        return self._id

    def poll(self, external_id: str) -> TaskStatus:
        """Look whether the command has ended."""
        if self._child is None or external_id != self._id:
            return TaskStatus(State.UNKNOWN, f"{external_id} ended with its watcher")
        code = self._child.poll()
        if code is None:
            return TaskStatus(State.RUNNING)
        if code == 0:
            return TaskStatus(State.DONE)
        is_fatal = self._exits.get(code) == "failed"
        said = f"{self._command[0]} ended with {code}; see what it said above"
        return TaskStatus(State.FATAL if is_fatal else State.RETRYABLE, said)

    def cancel(self, external_id: str) -> None:
        """End the command."""
        self.close()

    def find_by_key(self, key: str, reservation: str | None = None) -> str | None:
        """None: what another watcher has started has ended with it."""
        return None

    def check(self, place: Place, has_to_exist: bool) -> str | None:
        """Nothing is known ahead of what a tool may do."""
        return None

    def close(self) -> None:
        """End the command and whatever it has started, if it still runs."""
        if self._child is None or self._child.poll() is not None:
            return
        os.killpg(self._child.pid, signal.SIGTERM)
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            # The command may be gone before what it has started.
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._child.wait()
