"""The server's end: starts the process that writes, and hears what became of each batch."""

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
from htlease_server.store.base import Batch, StoreFailed, Uncertain
from htlease_server.store.sqlite.sqlite_file import FileId
from htlease_server.store.sqlite.writer_protocol import framed, outcome_from, receive


class Written(NamedTuple):
    """What became of a batch, and how many seconds that took."""

    problem: StoreFailed | None
    seconds: float


class Writer(Protocol):
    """Makes batches durable, one at a time, while the event loop goes on."""

    @property
    def is_alive(self) -> bool:
        """Whether it takes batches."""

    def start(self, loop: asyncio.AbstractEventLoop, on_written: Callable[[Written], None]) -> None:
        """Tell `on_written`, in the event loop, what became of each batch; raises StoreFailed."""

    def put(self, batch: Batch) -> None:
        """Begin with a batch; the one before has to be done. Raises StoreFailed."""

    def wait(self) -> Written:
        """Return what became of the batch that was put; for when the loop has ended."""

    def close(self) -> None:
        """Let go of the store."""


class WriterProcess:
    """A writer in a process of its own, which ends with this one."""

    def __init__(self, path: Path, file: FileId, run_started_at: float) -> None:
        """Start it for a store that this process has set up and locked."""
        self._name = str(path)
        self._line, others_end = socket.socketpair()
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
                # It ends by the end of the line, after its last batch, and not by Ctrl-C.
                start_new_session=True,
            )
        self._stream = self._line.makefile("rb")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_written: Callable[[Written], None]
        self.is_alive = True

    def start(self, loop: asyncio.AbstractEventLoop, on_written: Callable[[Written], None]) -> None:
        problem = self.wait().problem  # it says so when it is ready
        if problem is not None:
            raise problem
        self._loop, self._on_written = loop, on_written
        loop.add_reader(self._line.fileno(), self._hear)
        # uvloop has changed that. An outcome is there when the loop says so, and a batch of any
        # size is taken at once, since there is never a second one.
        self._line.setblocking(True)

    def put(self, batch: Batch) -> None:
        try:
            self._line.sendall(framed(batch))
        except OSError:  # the answer that does not come tells the rest
            raise self._lost() from None

    def wait(self) -> Written:
        try:
            body = receive(self._stream)
        except OSError:
            body = None
        if body is None:
            return Written(self._lost(), 0.0)
        outcome = outcome_from(body)
        if outcome.trace is not None:
            note(logging.ERROR, "writing a batch failed", traceback=outcome.trace)
        return Written(outcome.failure, outcome.seconds)

    def close(self) -> None:
        self._end()
        self._stream.close()
        self._line.close()
        self._process.wait()

    def _hear(self) -> None:
        self._on_written(self.wait())

    def _lost(self) -> StoreFailed:
        self._end()
        return Uncertain(f"store {self._name}: the process that writes it has ended")

    def _end(self) -> None:
        self.is_alive = False
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._line.fileno())
