"""Columns of many rows as PostgreSQL's binary arrays, so that one statement takes a whole batch.

psycopg's own dumping of lists looks at every item and chooses the smallest integer type that fits,
which makes another prepared statement for each choice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)
_BIGINT, _INTEGER, _FLOAT, _TEXT, _BYTES = 20, 23, 701, 25, 17


def bigints(values: Sequence[int | None]) -> bytes:
    """Return a `bigint[]`."""
    if None in values:
        return _joined(_BIGINT, (_bigint(value) for value in values), len(values))
    return _fixed(_BIGINT, "iq", 8, values)


def integers(values: Sequence[int]) -> bytes:
    """Return an `integer[]`."""
    return _fixed(_INTEGER, "ii", 4, values)


def floats(values: Sequence[float]) -> bytes:
    """Return a `double precision[]`."""
    return _fixed(_FLOAT, "id", 8, values)


def texts(values: Sequence[str | None]) -> bytes:
    """Return a `text[]`."""
    encoded = (None if value is None else value.encode() for value in values)
    return _joined(_TEXT, encoded, len(values))


def byte_strings(values: Sequence[bytes | None]) -> bytes:
    """Return a `bytea[]`."""
    return _joined(_BYTES, values, len(values))


def _head(oid: int, count: int) -> bytes:
    return struct.pack("!iiIii", 1, 1, oid, count, 1) if count else struct.pack("!iiI", 0, 0, oid)


def _fixed(oid: int, letters: str, size: int, values: Sequence[Any]) -> bytes:
    count = len(values)
    words = chain.from_iterable(zip((size,) * count, values, strict=True))
    return _head(oid, count) + struct.pack("!" + letters * count, *words)


def _joined(oid: int, values: Iterable[bytes | None], count: int) -> bytes:
    parts = [_head(oid, count)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(_LENGTH(len(value)))
            parts.append(value)
    return b"".join(parts)


def _bigint(value: int | None) -> bytes | None:
    return None if value is None else value.to_bytes(8, "big", signed=True)
