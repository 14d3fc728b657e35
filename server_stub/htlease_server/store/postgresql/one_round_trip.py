"""Many statements in one round trip, sent and answered with as few waits as there can be.

psycopg's own pipeline waits for the socket around every statement. Each wait gives Python's global
lock away, and while requests are read the other thread keeps it for milliseconds; a batch has a
dozen statements. Here a batch waits twice. Statements are prepared when they come for the first
time; parameters are bytes in PostgreSQL's binary format.
"""

from __future__ import annotations

import itertools
import select
import struct
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

#: Longer than any statement may take; only a COMMIT waits longer, for a standby that has gone.
_ANSWER_MAX_SECONDS = 30.0
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)

float8 = struct.Struct("!d").pack


class Pipeline:
    """The statements of one connection, which is used for nothing else from then on."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._pg.enter_pipeline_mode()
        self._loader = Transformer(connection)
        self._names: dict[str, bytes] = {}
        self._numbers = itertools.count()
        self._new_names: list[str] = []
        #: For each answer that is due: whether it is a statement's own, or that to its preparing.
        self._due: list[bool] = []
        self._poll = select.poll()

    def send(self, statement: str, *given: bytes | None) -> int:
        """Send a statement; return the place of its rows in what `answers` returns."""
        name = self._names.get(statement)
        if name is None:
            # Never a name again: what failed at its first use may have been prepared all the same.
            name = self._names[statement] = f"s{next(self._numbers)}".encode()
            self._new_names.append(statement)
            self._pg.send_prepare(name, statement.encode())
            self._due.append(False)
        formats = [Format.BINARY] * len(given)
        self._pg.send_query_prepared(name, given, formats, Format.BINARY)
        self._due.append(True)
        return sum(self._due) - 1

    def answers(self) -> list[PGresult]:
        """Wait for the answers to all that was sent; raises psycopg.Error, the first one."""
        due, self._due = self._due, []
        new_names, self._new_names = self._new_names, []
        self._pg.pipeline_sync()
        self._flush()
        results = [self._result() for _ in due]
        self._result()  # that of the sync
        for result in results:
            if result.status in _FAILED:
                for statement in new_names:  # it may not have been prepared
                    del self._names[statement]
                raise errors.error_from_result(result)
        return [result for result, is_own in zip(results, due, strict=True) if is_own]

    def rows(self, result: PGresult) -> list[Any]:
        """Return the rows of an answer."""
        self._loader.set_pgresult(result)
        return self._loader.load_rows(0, result.ntuples, tuple)

    @property
    def is_idle(self) -> bool:
        """Whether there is no transaction open."""
        return self._pg.transaction_status == TransactionStatus.IDLE

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._connection.closed or self._pg.status != ConnStatus.OK

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _flush(self) -> None:
        while self._pg.flush():
            self._wait(select.POLLIN | select.POLLOUT)
            self._pg.consume_input()

    def _result(self) -> PGresult:
        while True:
            while self._pg.is_busy():
                self._wait(select.POLLIN)
                self._pg.consume_input()
            result = self._pg.get_result()
            if result is not None:
                return result
            if self._pg.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection is lost")

    def _wait(self, events: int) -> None:
        self._poll.register(self._pg.socket, events)
        if not self._poll.poll(_ANSWER_MAX_SECONDS * 1000):
            self.close()
            raise psycopg.OperationalError(
                f"the database has not answered for {_ANSWER_MAX_SECONDS:g} s"
            )
