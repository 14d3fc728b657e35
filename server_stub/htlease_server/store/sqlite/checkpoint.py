"""Moves what is in SQLite's write-ahead log to the main file, beside the writer.

SQLite would have it done by whoever commits: of a large store thousands of pages at random places,
and everybody waits. So a thread does it over a connection of its own while the writer goes on. What
has been written meanwhile the writer moves itself; that is little, and then the log begins anew.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from htlease_server.logs import note

#: Rows changed before the log is moved: each changes a page or two of 4 KiB, or shares one. More at
#: once keep the disk from syncing the log for longer, fewer write the same pages more often.
_CHANGES = 2_000
#: Where many requests share a commit their rows share pages.
_APART_SECONDS = 1.0
#: Rows changed meanwhile that the writer moves itself, and how often the thread tries to get there.
_REST = 250
_TRIES = 4


class Checkpoints:
    """For the one connection that writes; only `close` may be called by another thread."""

    def __init__(
        self, writer: sqlite3.Connection, connect: Callable[[], sqlite3.Connection]
    ) -> None:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        self._writer = writer
        self._connect = connect
        self._pool = ThreadPoolExecutor(1, "htlease-checkpoint")
        self._moving: Future[None] | None = None
        self._tries = 0
        #: Changes of the writer's connection when the log was last moved.
        self._from = writer.total_changes
        self._at = 0.0

    def after_commit(self) -> None:
        """Have the log moved if it has become long."""
        if self._moving is None:
            if self._changes() < _CHANGES or time.monotonic() < self._at + _APART_SECONDS:
                return
        elif not self._moving.done():
            return
        elif self._changes() <= _REST or self._tries >= _TRIES:
            self._moving = None
            self._tries = 0
            self._mark()
            _move(self._writer)
            return
        self._tries += 1
        self._mark()
        self._moving = self._pool.submit(self._move_beside)

    def _mark(self) -> None:
        self._from, self._at = self._writer.total_changes, time.monotonic()

    def close(self) -> None:
        """Wait for the thread."""
        self._pool.shutdown()

    def _changes(self) -> int:
        return self._writer.total_changes - self._from

    def _move_beside(self) -> None:
        try:
            with closing(self._connect()) as connection:
                _move(connection)
        except Exception:
            note(logging.WARNING, "moving the write-ahead log failed", trace=True)


def _move(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as problem:
        # Nothing is lost: the log has it all, and is moved another time.
        note(logging.WARNING, "moving the write-ahead log failed", problem=str(problem))
