"""The store in one SQLite file: WAL, every commit on the disk before it counts (FULL).

One server process owns the file (a lock beside it); any number of readers may look.
"""

from __future__ import annotations

import fcntl
import os
import pkgutil
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.queries import ALL_MAINTENANCE
from htlease_server.sqlite_reader import SqliteReader, connected
from htlease_server.sqlite_writer import SqliteWriter
from htlease_server.store import Batch, MaintenanceRow, Run, StoreFailed

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
)
#: Runs remembered. What lies between the oldest and these counts as one long downtime, which can
#: only lengthen a lease.
RUNS_KEPT = 100
#: In the lock file: when the server started that ran last, and its last sign of life.
_STAMP_BYTES = 64
#: What SQLite says when a later start may succeed without anybody changing the set-up.
_PASSING = ("database or disk is full", "disk I/O error", "is locked")


class SqliteStore(SqliteReader):
    """The store in one file; raises BadConfig when the file cannot be used.

    Raises StoreFailed when it cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path
        self._lock_fd = self.lock(path)
        try:
            super().__init__(connected(path))
            try:
                self._writer = self._set_up()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            os.close(self._lock_fd)
            raise

    @staticmethod
    def lock(path: Path) -> int:
        """Make this process the one writer of a file; the lock ends with the process or the fd.

        Raises BadConfig.
        """
        lock_path = path.with_name(path.name + ".lock")
        try:
            fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            belong_with(fd, path.parent)
        except OSError as problem:
            raise BadConfig(
                f"store {path} cannot be written: {problem.strerror}; make its directory, writable"
                " for you, or name another store with --store"
            ) from problem
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(fd)
            raise BadConfig(
                f"store {path} is in use by another htlease server; stop that one first, or name"
                " another store with --store"
            ) from problem
        return fd

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
                script = pkgutil.get_data("htlease_server", f"schema/sqlite/{name}")
                assert script is not None, f"schema/sqlite/{name} is missing from the package"
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
            self._db.execute("INSERT OR REPLACE INTO server_run VALUES (?, ?)", (now, now))
            self._db.execute("INSERT OR REPLACE INTO current_run VALUES (1, ?)", (now,))
            self._db.execute("COMMIT")
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
        stamp = os.pread(self._lock_fd, _STAMP_BYTES, 0).split()
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
            os.pwrite(self._lock_fd, stamp, 0)

    def accept_the_past(self) -> None:
        """Let the next server start on this file, whatever ran here before."""
        os.ftruncate(self._lock_fd, 0)

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

    def write(self, batch: Batch) -> None:
        self._writer.write(batch)

    def reader(self) -> SqliteReader:
        return SqliteReader(connected(self.path, read_only=True))

    def close(self) -> None:
        self._writer.close()
        super().close()
        os.close(self._lock_fd)


def belong_with(file: int | Path, directory: Path) -> None:
    """Give what root has made to the directory's owner, who is to go on with it; raises OSError.

    Root works where a service of another user has its store. SQLite does the same with `-wal`.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        if isinstance(file, int):
            os.fchown(file, owner.st_uid, owner.st_gid)
        else:
            # The owner may have put a link there meanwhile.
            os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)


def path_of(url: str) -> Path:
    """Return the file that `sqlite:///PATH` names; an absolute PATH makes it four slashes."""
    match = re.fullmatch(r"sqlite:///(.+)", url)
    if not match:
        raise BadConfig(f"store {url!r} is neither sqlite:///PATH nor postgresql://…")
    return Path(match[1]).absolute()
