"""Whether the server can do its work, for load balancers, service managers and people."""

from __future__ import annotations

from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.engine.states.memory_states import ALIVE_SECONDS

#: An idle server writes every `ALIVE_SECONDS`; a busy one is allowed two slow ones of these.
STALE_SECONDS = 3 * ALIVE_SECONDS


def why_not_ready(store_writer: StoreWriter) -> str | None:
    """Say why writes would be refused or not answered, or None when they are taken.

    True is what the disk said, not what the process hopes: a batch was made durable lately, and
    none was refused since.
    """
    if not store_writer.is_alive:
        return "the writer has ended; restart the server"
    if store_writer.failure is not None:
        return store_writer.failure
    age_seconds = store_writer.commits.age_seconds()
    if age_seconds > STALE_SECONDS:
        return (
            f"nothing has reached the store for {age_seconds:.0f} s; its disk or database hangs,"
            " or another program locks it"
        )
    return None
