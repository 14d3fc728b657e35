"""The server's end: starts the process that writes, and hears what became of each write set."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from htlease_server.logs import note
from htlease_server.store.base import CommitOutcomeUnknown, StoreFailed, WriteSet
from htlease_server.store.sqlite.sqlite_file import FileId
from htlease_server.store.sqlite.writer_protocol import framed, outcome_from, receive


class CommitResult(NamedTuple):
    """What became of a write set, and how many seconds that took."""

    problem: StoreFailed | None
    seconds: float


class Writer(Protocol):
    """Makes write sets durable, one at a time, while the event loop goes on."""

    @property
    def is_alive(self) -> bool:
        """Whether it takes write sets."""

    def start(
        self, loop: asyncio.AbstractEventLoop, on_written: Callable[[CommitResult], None]
    ) -> None:
        """Tell `on_written`, in the event loop, of each write set's end; raises StoreFailed."""

    def put(self, write_set: WriteSet) -> None:
        """Begin with a write set; the one before has to be done. Raises StoreFailed."""

    def wait(self) -> CommitResult:
        """Return what became of the write set that was put; for when the loop has ended."""

    def close(self) -> None:
        """Let go of the store."""


class WriterProcess:
    """A writer in a process of its own, which ends with this one."""

    def __init__(self, path: Path, file: FileId, run_started_at: float) -> None:
        """Start it for a store that this process has set up and locked."""
        self._name = str(path)
        self._socket, others_end = socket.socketpair()
        with others_end:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "htlease_server.store.sqlite.writer_main"),
                    *(str(path), f"{file.device}:{file.inode}", repr(run_started_at)),
                    str(others_end.fileno()),
                ],
                pass_fds=(others_end.fileno(),),
                stdin=subprocess.DEVNULL,
                # What is imported here is imported there, and nothing that lies about.
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # It ends by the end of the socket, after its last write set, and not by Ctrl-C.
                start_new_session=True,
            )
        self._stream = self._socket.makefile("rb")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_written: Callable[[CommitResult], None]
        self.is_alive = True

    def start(
        self, loop: asyncio.AbstractEventLoop, on_written: Callable[[CommitResult], None]
    ) -> None:
        problem = self.wait().problem  # it says so when it is ready
        if problem is not None:
            raise problem
        self._loop, self._on_written = loop, on_written
        loop.add_reader(self._socket.fileno(), self._hear)
        # uvloop has changed that. An outcome is there when the loop says so, and a write set of any
        # size is taken at once, since there is never a second one.
        self._socket.setblocking(True)

    def put(self, write_set: WriteSet) -> None:
        try:
            self._socket.sendall(framed(write_set))
        except OSError:  # the answer that does not come tells the rest
            raise self._lost() from None

    def wait(self) -> CommitResult:
        try:
            body = receive(self._stream)
        except OSError:
            body = None
        if body is None:
            return CommitResult(self._lost(), 0.0)
        outcome = outcome_from(body)
        if outcome.trace is not None:
            note(logging.ERROR, "writing a batch failed", traceback=outcome.trace)
        return CommitResult(outcome.failure, outcome.seconds)

    def close(self) -> None:
        self._end()
        self._stream.close()
        self._socket.close()
        self._process.wait()

    def _hear(self) -> None:
        self._on_written(self.wait())

    def _lost(self) -> StoreFailed:
        self._end()
        return CommitOutcomeUnknown(f"store {self._name}: the process that writes it has ended")

    def _end(self) -> None:
        self.is_alive = False
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
