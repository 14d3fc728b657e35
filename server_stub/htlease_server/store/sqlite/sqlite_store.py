"""The store in one SQLite file: WAL, every commit on the disk before it counts (FULL).

One server owns the file (see `sqlite_file`); any number of readers may look.
"""

from __future__ import annotations

import os
import pkgutil
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.store.base import MaintenanceRow, Run, StoreFailed, WriteSet
from htlease_server.store.sql import ALL_MAINTENANCE
from htlease_server.store.sqlite.sqlite_file import Hold, log_files
from htlease_server.store.sqlite.sqlite_place import (
    Place,
    check_place,
    forget_place,
    put_place,
    put_whole,
)
from htlease_server.store.sqlite.sqlite_reader import SqliteReader, connected
from htlease_server.store.sqlite.sqlite_writer import SqliteWriter

#: Migrations in order; `PRAGMA user_version` counts how many of them a file has seen.
MIGRATIONS = (
    "0001_first.sql",
    "0002_via.sql",
    "0003_maintenance.sql",
    "0004_keeping.sql",
    "0005_flags.sql",
    "0006_deeds.sql",
    "0007_held.sql",
    "0008_current_run.sql",
    "0009_marks.sql",
    "0010_place.sql",
)
#: Runs remembered. What lies between the oldest and these counts as one long downtime, which can
#: only lengthen a lease.
RUNS_KEPT = 1_000
#: In the lock file: when the server started that ran last, and its last sign of life.
_STAMP_BYTES = 64
#: What SQLite says when a later start may succeed without anybody changing the set-up.
_PASSING = ("database or disk is full", "disk I/O error", "is locked")


class SqliteStore(SqliteReader):
    """The store in one file; raises BadConfig when the file cannot be used.

    Raises StoreFailed when it cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        # The log lies beside the file that a link leads to.
        self.path = path = path.resolve()
        self.name = str(path)
        self._hold = Hold(path, is_made=True)
        assert self._hold.file is not None
        self.file = self._hold.file
        self._run_started_at: float | None = None
        try:
            self._has_log = _has_log(path)
            super().__init__(connected(path))
            try:
                self._writer = self._set_up()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._hold.close()
            raise

    def _set_up(self) -> SqliteWriter:
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise BadConfig(
                    f"store {self.name} has schema version {version}, written by a newer htlease;"
                    f" this one knows version {len(MIGRATIONS)}: upgrade htlease, or name another"
                    " store with --store"
                )
            self._db.execute("PRAGMA journal_mode = WAL")
            writer = SqliteWriter(self._db, self.path)
            for number, name in enumerate(MIGRATIONS[version:], version + 1):
                script = pkgutil.get_data("htlease_server", f"store/sqlite/schema/{name}")
                assert script is not None, f"store/sqlite/schema/{name} is missing from the package"
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {script.decode()} PRAGMA user_version = {number}; COMMIT;"
                )
            return writer
        except sqlite3.DatabaseError as problem:
            self._fail_if_passing(problem)
            raise BadConfig(
                f"store {self.name} cannot be used: {problem}; restore it from a backup, or name"
                " another store with --store"
            ) from problem

    def begin_run(self, now: float) -> Sequence[Run]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "DELETE FROM server_run WHERE started_at >"
                " (SELECT min(started_at) FROM server_run) AND started_at <="
                " (SELECT started_at FROM server_run ORDER BY started_at DESC LIMIT 1 OFFSET ?)",
                (RUNS_KEPT - 1,),
            )
            rows = self._db.execute(
                "SELECT started_at, alive_at FROM server_run ORDER BY started_at"
            )
            before = [Run(*row) for row in rows]
            self._refuse_the_past(before)
            here = Place.of(self.path)
            check_place(self._db, here, self._has_log)
            put_place(self._db, here)
            self._db.execute("INSERT OR REPLACE INTO server_run VALUES (?, ?)", (now, now))
            self._db.execute("INSERT OR REPLACE INTO current_run VALUES (1, ?)", (now,))
            self._db.execute("COMMIT")
            # Whoever finds the main file without its log is to see that there was one.
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._run_started_at = now
            self.stamp(Run(now, now))
        except sqlite3.Error as problem:
            self._fail_if_passing(problem)
            raise BadConfig(
                f"store {self.name} takes no writes: {problem}; make it writable, or name another"
                " store with --store"
            ) from problem
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        return before

    def _fail_if_passing(self, problem: sqlite3.Error) -> None:
        if any(text in str(problem) for text in _PASSING):
            advice = "end the program that has it" if "lock" in str(problem) else "make room"
            raise StoreFailed(
                f"store {self.name} takes no writes: {problem}; {advice}"
            ) from problem

    def _refuse_the_past(self, runs: Sequence[Run]) -> None:
        """Refuse a file that does not know the last server that ran on it.

        It is from a backup, or new: its fences would be issued again.
        """
        stamp = os.pread(self._hold.stamp_fd, _STAMP_BYTES, 0).split()
        if stamp and dict(runs).get(float(stamp[0]), 0.0) < float(stamp[1]):
            raise BadConfig(
                f"store {self.name} is older than what the last server here had; if it comes from a"
                " backup, or has to begin anew, run `htlease store fence-off`, which shuts out the"
                " attempts that it does not know"
            )

    def stamp(self, run: Run) -> None:
        """Note beside the file how far it has got, so that an older one is not taken for it."""
        stamp = f"{run.started_at!r} {run.alive_at!r}".encode().ljust(_STAMP_BYTES)
        # On a full disk; an older stamp refuses less, and never too much.
        with suppress(OSError):
            os.pwrite(self._hold.stamp_fd, stamp, 0)

    def accept_the_past(self) -> None:
        """Let the next server start on this file, whatever ran here before, or elsewhere."""
        self.forget_place()
        os.ftruncate(self._hold.stamp_fd, 0)

    def forget_place(self) -> None:
        """Let the next server start on this file wherever it is."""
        forget_place(self._db)

    def maintenance(self) -> Sequence[MaintenanceRow]:
        rows = self._db.execute(ALL_MAINTENANCE)
        return [MaintenanceRow(*row) for row in rows]

    def fence_floor(self) -> int:
        floor: int = self._db.execute("SELECT fence FROM fence_floor").fetchone()[0]
        return floor

    def next_ids(self) -> tuple[int, int]:
        query = "SELECT (SELECT max(id) FROM workflow), (SELECT max(id) FROM subjob)"
        workflow_id, subjob_id = self._db.execute(query).fetchone()
        return (workflow_id or 0) + 1, (subjob_id or 0) + 1

    def write(self, write_set: WriteSet) -> None:
        self._writer.write(write_set)

    def check_in_place(self) -> None:
        self.file.check()

    def reader(self) -> SqliteReader:
        return SqliteReader(connected(self.path, read_only=True))

    def close(self) -> None:
        """Let go of the store; raises Displaced, and does not, when it is another's.

        SQLite's last connection removes the log by its name, which is the other's then.
        """
        self._writer.close()
        self.file.check()
        if self._run_started_at is not None:
            with suppress(sqlite3.Error):  # then it says so no more; nothing is lost
                put_whole(self._db, self._run_started_at)
        super().close()
        self._hold.close()


def not_there(path: Path) -> BadConfig:
    """Return that there is no such store."""
    return BadConfig(
        f"store {path} does not exist; name another with --store"
        " (sqlite:///x is relative, sqlite:////srv/x absolute)"
    )


def path_of(url: str) -> Path:
    """Return the file that `sqlite:///PATH` names; an absolute PATH makes it four slashes.

    Links are followed: a store's log lies beside the file itself. Raises BadConfig.
    """
    match = re.fullmatch(r"sqlite:///(.+)", url)
    if not match:
        raise BadConfig(
            f"store {url!r} is neither sqlite:///PATH (sqlite:////srv/x for the absolute /srv/x)"
            " nor postgresql://…"
        )
    return Path(match[1]).resolve()


def _has_log(path: Path) -> bool:
    """Tell whether something is in SQLite's log; to be asked before SQLite looks."""
    try:
        return log_files(path)[0].stat().st_size > 0
    except OSError:
        return False
