"""Whether servers could renew leases all the time; each new connection of a writer looks at it."""

from __future__ import annotations

from typing import Any

import psycopg

from htlease_server.store.postgresql.postgres_reader import (
    ALIVE_MARGIN_SECONDS,
    Moment,
    moment_query,
)

RUNS_KEPT = 1_000
_RUNS_LOCK = 7597121901
#: No server has given a sign of life for so long: leases could not be renewed.
_SILENCE_SECONDS = 5.0
#: A new primary's clock may be behind by so much without anybody noticing.
_CLOCK_BACK_SECONDS = 5.0


def begin_run(connection: psycopg.Connection[Any], clock: str) -> None:
    """Begin a run of all servers, unless the newest one goes on.

    It goes on when the database has not crashed, and some server has given a sign of life
    lately. Else nobody could renew for a time, or renewals that were answered may be lost.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_RUNS_LOCK,))
        witness = connection.execute("SELECT pg_postmaster_start_time()::text").fetchone()
        assert witness is not None
        is_same_life = connection.execute(
            "SELECT 1 FROM database_life WHERE witness = %s", witness
        ).fetchone()
        row = connection.execute(moment_query(clock).encode()).fetchone()
        assert row is not None
        moment = Moment(*row)
        silent_seconds = moment.clock_at - moment.alive_at - ALIVE_MARGIN_SECONDS
        is_clock_back = silent_seconds < -_CLOCK_BACK_SECONDS
        if is_same_life and moment.run_id and not is_clock_back:
            if silent_seconds < _SILENCE_SECONDS:
                return
        now = moment.clock_at if is_clock_back else moment.now
        if is_clock_back:
            _set_back(connection, now)
        # On a primary that was cut off servers may have answered renewals a little longer.
        answered_from = now if is_same_life else now + ALIVE_MARGIN_SECONDS
        connection.execute(
            "INSERT INTO server_run (started_at, alive_at) VALUES (%s, %s)",
            (answered_from, now - ALIVE_MARGIN_SECONDS),
        )
        connection.execute(
            "DELETE FROM server_run WHERE id > (SELECT min(id) FROM server_run) AND id <="
            " (SELECT id FROM server_run ORDER BY id DESC LIMIT 1 OFFSET %s)",
            (RUNS_KEPT,),
        )
        connection.execute("DELETE FROM database_life")
        connection.execute("INSERT INTO database_life VALUES (%s)", witness)


def _set_back(connection: psycopg.Connection[Any], now: float) -> None:
    """Make no lease longer than its ttl by a clock that is behind the one it was written by."""
    connection.execute("SET LOCAL enable_seqscan = on")
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute(
        "UPDATE lease SET deadline_at = %s + ttl_seconds WHERE deadline_at > %s + ttl_seconds",
        (now, now),
    )
    connection.execute("DELETE FROM server_run WHERE started_at > %s OR alive_at > %s", (now, now))
