"""A personal HTCondor pool for the demo, the tests and for trying htlease."""

from .errors import PoolError
from .pool import Event, Pool

__all__ = ["Event", "Pool", "PoolError"]
