"""Many rows into a SQLite table by few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any


class Insert:
    """An INSERT of any number of rows in few statements.

    One for each row would cost more, in Python and in SQLite, than the rows themselves.
    """

    #: Rows in one statement, largest first; each size is prepared once and stays prepared.
    _SIZES = (64, 16, 4, 1)

    def __init__(self, table: str, names: Sequence[str], on_conflict: str = "") -> None:
        row = f"({', '.join('?' * len(names))})"
        head = f"INSERT INTO {table} ({', '.join(names)}) VALUES"
        self._statements = [
            (size, f"{head} {', '.join([row] * size)} {on_conflict}") for size in self._SIZES
        ]

    def run(self, db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows in order."""
        at = 0
        for size, statement in self._statements:
            while len(rows) - at >= size:
                db.execute(statement, tuple(chain.from_iterable(rows[at : at + size])))
                at += size


def upsert(table: str, names: Sequence[str], fixed: Sequence[str]) -> Insert:
    """Return an INSERT that changes a row that is there, but for what is fixed.

    SQLite writes an index anew when a column of it is set, even to what it was.
    """
    changed = ", ".join(f"{name} = excluded.{name}" for name in names if name not in fixed)
    return Insert(table, names, f"ON CONFLICT ({names[0]}) DO UPDATE SET {changed}")
