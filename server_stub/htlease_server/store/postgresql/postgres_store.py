"""The database as the writer uses it: what a batch reads under locks, and what it writes.

A batch is one transaction and two round trips, whatever its size. It locks rows of `lease` in the
order of their IDs, so that two servers never wait for each other; what it reads after that nobody
else can change before it commits.
"""

from __future__ import annotations

import logging
import random
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import errors

from htlease.errors import BadConfig
from htlease.rules.attempt import SubjobKey
from htlease_server.logs import note
from htlease_server.store.base import (
    CommitOutcomeUnknown,
    Conflict,
    DeletedSubjob,
    Displaced,
    StoreFailed,
    SubjobRow,
    Unstorable,
    WorkflowRow,
    WriteSet,
)
from htlease_server.store.postgresql import statements as sql
from htlease_server.store.postgresql.bulk_arrays import bigints, texts
from htlease_server.store.postgresql.connection import Database, why_not
from htlease_server.store.postgresql.one_round_trip import Pipeline, float8
from htlease_server.store.postgresql.postgres_place import check_place
from htlease_server.store.postgresql.postgres_reader import CLOCK, Moment, PostgresReader
from htlease_server.store.postgresql.server_runs import begin_run

_RECONNECT_SECONDS = 0.5
_SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "8s",
    "idle_in_transaction_session_timeout": "10s",
    # Every statement finds its rows by an index. Plans are made while the tables are empty and are
    # used when they are large, so the choice is not left to guesses about sizes.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
#: Servers are spread over so many rows for each count.
_SHARES = 16
#: What is over when the whole batch is taken again: another server made the same subjob first, or
#: a deadlock.
_AGAIN = ("23505", "40001", "40P01")
#: Classes of errors that one request of a batch is to blame for.
_UNSTORABLE = ("22", "23", "54")


_Row = TypeVar("_Row", bound=tuple[Any, ...])


class Wanted(NamedTuple):
    """What a batch is going to look at."""

    #: (row ID, seq) of subjobs that are remembered, and the names of those that are not.
    known: Sequence[tuple[int, int]] = ()
    named: Sequence[SubjobKey] = ()
    workflows: Sequence[str] = ()
    #: Workflows that are to be changed, and whether a maintenance window is.
    locked_workflows: Sequence[str] = ()
    is_maintenance: bool = False
    is_flag: bool = False
    #: Take a new block of row IDs for workflows, for subjobs.
    is_workflow_ids: bool = False
    is_subjob_ids: bool = False


class Found(NamedTuple):
    """What a batch found, as it stays until its end."""

    moment: Moment
    #: Row ID -> (seq, deadline, snapshot or None when it is as remembered); locked ones only.
    known: dict[int, tuple[int, float, bytes | None]]
    #: Key -> (row ID, workflow's, seq, deadline, snapshot).
    named: dict[SubjobKey, tuple[int, int, int, float, bytes]]
    workflows: dict[str, WorkflowRow]
    workflow_ids: int | None
    subjob_ids: int | None


class PostgresStore(PostgresReader):
    """The database; look-ups and writes go over connections of their own.

    `clock` is SQL for seconds since 1970. Raises BadConfig when the database cannot be used, and
    StoreFailed when it cannot be used now.
    """

    def __init__(self, url: str, clock: str = CLOCK) -> None:
        database = Database(url)
        super().__init__(database, clock)
        self._clock = clock
        self._renew = sql.RENEW.format(clock=clock)
        self._tries_again_at = 0.0
        self._share = random.randrange(_SHARES)
        self._writer: Pipeline | None = None
        #: Raised by each new connection: what is remembered from an older one may be wrong.
        self.connections = 0
        connection = database.connect_first()
        try:
            self._writer = self._prepared(connection)
        except psycopg.Error as problem:
            connection.close()
            kind = StoreFailed if isinstance(problem, psycopg.OperationalError) else BadConfig
            raise kind(f"store {self.name} takes no writes: {problem}") from None
        except BadConfig:
            connection.close()
            raise

    @property
    def name(self) -> str:
        """What a person calls this store; holds no secret."""
        return self._database.name

    def reader(self) -> PostgresReader:
        """Return a new connection for look-ups that sees what has been written."""
        return PostgresReader(self._database, self._clock)

    def close(self) -> None:
        super().close()
        self._drop()

    # ------------------------------------------------------------ the writer's connection

    def _prepared(self, connection: psycopg.Connection[Any]) -> Pipeline:
        for name, value in _SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        # What a site has set counts when it is stricter: remote_apply.
        connection.execute(
            "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
            " WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)"
        )
        for name in ("fsync", "full_page_writes"):
            (value,) = connection.execute(f"SHOW {name}".encode()).fetchone() or ("",)
            if value == "off":
                note(logging.WARNING, "the database may lose what it has acknowledged", off=name)
        connection.add_notice_handler(self._note)
        self._warning: str | None = None
        check_place(connection, self.name)
        begin_run(connection, self._clock)
        self.connections += 1
        return Pipeline(connection)

    def _note(self, diagnostic: errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warning = diagnostic.message_primary

    def _connected(self) -> Pipeline:
        if self._writer is not None and not self._writer.is_lost:
            return self._writer
        self._writer = None
        if time.monotonic() < self._tries_again_at:
            raise StoreFailed(f"store {self.name} has been lost; connecting again")
        connection = None
        try:
            connection = self._database.connect()
            self._writer = self._prepared(connection)
        except psycopg.Error as problem:
            if connection is not None:
                connection.close()
            self._tries_again_at = time.monotonic() + _RECONNECT_SECONDS
            raise StoreFailed(f"store {self.name} {why_not(problem)}") from None
        except BadConfig as problem:  # the database was replaced by another while it was away
            assert connection is not None
            connection.close()
            raise Displaced(str(problem)) from None
        return self._writer

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # ------------------------------------------------------------ a batch

    def open(self, wanted: Wanted) -> Found:
        """Begin a transaction and lock and read what is wanted; raises StoreFailed, Conflict."""
        pipeline = self._connected()
        try:
            return self._open(pipeline, wanted)
        except psycopg.Error as problem:
            raise self._failed(problem) from None

    def _open(self, pipeline: Pipeline, wanted: Wanted) -> Found:
        ids = bigints([row_id for row_id, _ in wanted.known])
        names = (
            texts([key.workflow for key in wanted.named]),
            texts([key.subjob for key in wanted.named]),
        )
        asked: dict[str, int] = {}
        pipeline.send("BEGIN ISOLATION LEVEL READ COMMITTED")
        if wanted.is_maintenance:
            pipeline.send(sql.LOCK_WINDOWS)
        if wanted.is_flag:
            pipeline.send(sql.LOCK_FLAGS)
        if wanted.locked_workflows:
            locked_names = texts(wanted.locked_workflows)
            asked["locked workflows"] = pipeline.send(sql.LOCK_WORKFLOWS, locked_names)
        if wanted.known or wanted.named:
            asked["locked"] = pipeline.send(sql.LOCK, *names, ids)
        asked["moment"] = pipeline.send(self._moment)
        if wanted.workflows:
            asked["workflows"] = pipeline.send(sql.WORKFLOWS, texts(wanted.workflows))
        if wanted.known:
            seqs = bigints([seq for _, seq in wanted.known])
            asked["known"] = pipeline.send(sql.READ_KNOWN, ids, seqs)
        if wanted.named:
            asked["named"] = pipeline.send(sql.READ_NAMED, *names)
        if wanted.is_workflow_ids:
            asked["workflow ids"] = pipeline.send("SELECT nextval('workflow_ids')")
        if wanted.is_subjob_ids:
            asked["subjob ids"] = pipeline.send("SELECT nextval('subjob_ids')")
        answers = pipeline.answers()

        def rows(what: str) -> list[Any]:
            return pipeline.rows(answers[asked[what]]) if what in asked else []

        locked_ids = {row_id for (row_id,) in rows("locked")}
        found = Found(
            Moment(*rows("moment")[0]),
            {row_id: row for row_id, *row in rows("known") if row_id in locked_ids},
            {wanted.named[nth - 1]: row for nth, *row in rows("named")},
            {row[1]: WorkflowRow(*row) for row in rows("workflows") + rows("locked workflows")},
            next((first for (first,) in rows("workflow ids")), None),
            next((first for (first,) in rows("subjob ids")), None),
        )
        if any(row[0] not in locked_ids for row in found.named.values()):
            self.rollback()
            raise Conflict("another server made a subjob meanwhile")
        return found

    def accepted(self, ids: Sequence[int]) -> dict[int, dict[str, bytes]]:
        """Return the requests accepted last of subjobs that are locked, oldest first."""
        assert self._writer is not None
        found: dict[int, dict[str, bytes]] = {row_id: {} for row_id in ids}
        try:
            self._writer.send(sql.READ_REQUESTS, bigints(ids))
            rows = self._writer.rows(self._writer.answers()[0])
        except psycopg.Error as problem:
            raise self._failed(problem) from None
        for row_id, request_id, digest in rows:
            found[row_id][request_id] = digest
        return found

    def lock_closed(self, ids: Sequence[int]) -> list[int]:
        """Lock subjobs that nobody else has locked; return those that are closed still."""
        locked = self._ids(sql.LOCK_FREE, ids)
        # A statement of its own: it sees what was committed before the locks were had.
        return self._ids(sql.STILL_CLOSED, locked)

    def _ids(self, query: str, ids: Sequence[int]) -> list[int]:
        assert self._writer is not None
        try:
            self._writer.send(query, bigints(ids))
            return [row_id for (row_id,) in self._writer.rows(self._writer.answers()[0])]
        except psycopg.Error as problem:
            raise self._failed(problem) from None

    def let_go(self, deleted: Sequence[DeletedSubjob], floor: int) -> None:
        """Delete locked subjobs with this batch, and raise the fence floor."""
        assert self._writer is not None
        ids, workflow = bigints([row.id for row in deleted]), bigints([deleted[0].workflow_id])
        known = [(text, row.id) for row in deleted for text in row.known_ids]
        known_texts, known_ids = (
            texts([text for text, _ in known]),
            bigints([row for _, row in known]),
        )
        try:
            self._writer.send(sql.BEGIN_TRIM, workflow)
            self._writer.send(sql.DROP_HISTORY, ids)
            self._writer.send(sql.END_TRIM, workflow)
            self._writer.send(sql.DROP_KNOWN_IDS, known_texts, known_ids)
            self._writer.send(sql.DROP_LEASES, ids)
            self._writer.send(sql.DROP_SUBJOBS, ids)
            self._writer.send(sql.RAISE_FLOOR, bigints([floor]))
            self._writer.answers()
        except psycopg.Error as problem:
            raise self._failed(problem) from None

    def write(self, write_set: WriteSet, renew_until: float | None = None) -> None:
        """Write a batch and commit; raises StoreFailed and its kinds, with nothing left open.

        With `renew_until` it is one of renewals only, which may be lost until the next one that is
        durable; it is refused when the database's clock has passed that instant.
        """
        pipeline = self._writer
        assert pipeline is not None
        self._warning = None
        try:
            if renew_until is None:
                self._send(pipeline, write_set)
            else:
                given = sql.PUT_LEASES.given(write_set.leases)
                pipeline.send(self._renew, *given, float8(renew_until))
                pipeline.send("SET LOCAL synchronous_commit = off")
        except (ValueError, struct.error) as problem:  # of a value that cannot be encoded
            self._drop()
            raise Unstorable(f"store {self.name}: {problem}") from None
        try:
            pipeline.send("COMMIT")
            first, *_ = pipeline.answers()
        except psycopg.Error as problem:
            raise self._failed(problem, is_sent=True) from None
        if renew_until is not None and first.command_tuples != len(write_set.leases):
            raise StoreFailed(f"store {self.name} took too long for renewals")
        if self._warning:  # of a synchronous standby that was not waited for
            warning = self._warning
            self._drop()
            raise CommitOutcomeUnknown(f"store {self.name}: {warning}")

    def _send(self, pipeline: Pipeline, write_set: WriteSet) -> None:
        for insert, rows in (
            # New rows in the same order everywhere, so that two servers never wait for each other.
            (sql.PUT_WORKFLOWS, sorted(_last_of(write_set.workflows, 1), key=_name_of_workflow)),
            (sql.PUT_SUBJOBS, [row[:-2] for row in sorted(write_set.subjobs, key=_name_of_subjob)]),
            (sql.PUT_LEASES, write_set.leases),
            (sql.ADD_HISTORY, write_set.history),
            (sql.ADD_KNOWN_IDS, write_set.known_ids),
            (sql.ADD_DEEDS, write_set.audit_entries),
            (sql.PUT_MAINTENANCE, _last_of(write_set.maintenance, 0)),
            (sql.PUT_FLAGS, _last_of(write_set.flags, 0)),
            # Last, since two servers may have the same share.
            (sql.COUNT, self._counts(write_set)),
        ):
            if rows:
                pipeline.send(insert.query, *insert.given(rows))
        if write_set.alive:
            pipeline.send(sql.SIGN_OF_LIFE, float8(write_set.alive.alive_at))

    def _counts(self, write_set: WriteSet) -> list[tuple[int, str, int, int, float]]:
        return [
            (workflow_id, status, self._share, count, at)
            for workflow_id, status, count, at in write_set.count_rows()
        ]

    def rollback(self) -> None:
        """End a transaction that has nothing to keep."""
        pipeline = self._writer
        if pipeline is None or pipeline.is_idle:
            return
        try:
            pipeline.send("ROLLBACK")
            pipeline.answers()
        except psycopg.Error:
            self._drop()

    def _failed(self, problem: psycopg.Error, is_sent: bool = False) -> StoreFailed:
        """Return what a failure means; `is_sent`: a COMMIT was on its way."""
        pipeline, state = self._writer, problem.sqlstate
        is_read_only = state == errors.ReadOnlySqlTransaction.sqlstate
        is_lost = pipeline is None or pipeline.is_lost or state is None or state[:3] == "57P"
        if is_lost or is_read_only:
            self._drop()
            kind = CommitOutcomeUnknown if is_sent and not is_read_only else StoreFailed
            return kind(f"store {self.name} {why_not(problem)}")
        self.rollback()
        told = f"store {self.name}: {problem.diag.message_primary or problem}"
        if state in _AGAIN:
            return Conflict(told)
        return Unstorable(told) if state and state[:2] in _UNSTORABLE else StoreFailed(told)


def _last_of(rows: Sequence[_Row], column: int) -> list[_Row]:
    """Return each thing once, as it was changed last; a column says what thing it is."""
    return list({row[column]: row for row in rows}.values())


def _name_of_workflow(row: WorkflowRow) -> str:
    return row.name


def _name_of_subjob(row: SubjobRow) -> tuple[int, str]:
    return row.workflow_id, row.name
