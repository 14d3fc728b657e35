"""The one exception a user of the pool meets."""

from __future__ import annotations


class PoolError(Exception):
    """Something the pool was asked for cannot be done; the text says what and what to do next."""
