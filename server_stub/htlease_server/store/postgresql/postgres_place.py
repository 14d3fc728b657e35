"""In which database a store says that it is, by which a restored copy is told from the one served.

Copies of a whole cluster (a standby, recovery to a point in time) have the same names; see the
manual on failover.
"""

from __future__ import annotations

from typing import Any

import psycopg

from htlease.errors import BadConfig


def check_place(connection: psycopg.Connection[Any], name: str) -> None:
    """Note where a store is that nobody has served; raises BadConfig for a copy of another.

    For a connection in autocommit mode.
    """
    here = _place(connection)
    connection.execute("INSERT INTO store_place VALUES (1, %s, %s) ON CONFLICT DO NOTHING", here)
    row = connection.execute("SELECT cluster, database FROM store_place").fetchone()
    if row is None:
        return  # removed by fence-off meanwhile
    is_same = all(was == now or not (was and now) for was, now in zip(row, here, strict=True))
    if not is_same:
        raise BadConfig(
            f"store {name} is a copy: it was last served from another database; run `htlease store"
            " fence-off`, which shuts out all attempts so far, once nobody serves that one; where"
            " nothing was done there since, `htlease store moved` in its place keeps the leases"
        )


def forget_place(connection: psycopg.Connection[Any]) -> None:
    """Let the next server serve a store wherever it is."""
    connection.execute("DELETE FROM store_place")


def _place(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    try:
        row = connection.execute(
            "SELECT system_identifier::text FROM pg_control_system()"
        ).fetchone()
    except psycopg.Error:  # a service that is not quite PostgreSQL, or does not say
        row = None
    database = connection.execute(
        "SELECT oid::text FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    return (row[0] if row else "", database[0] if database else "")
