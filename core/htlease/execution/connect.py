"""The way to the lease server that a URL names, on an execution point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from htlease.wire.transport import EXCHANGE_SECONDS, HttpTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from htlease.wire.transport import Transport


def transport_to(
    server: str,
    token: str | None,
    sandbox: Path,
    environ: Mapping[str, str],
    exchange_seconds: float = EXCHANGE_SECONDS,
) -> Transport:
    """Return a transport; `chirp:` leads through the job's attributes. Raises BadConfig."""
    if server.startswith("chirp:"):
        from htlease.execution.chirp_transport import ChirpTransport  # seldom needed

        return ChirpTransport(sandbox, environ)
    return HttpTransport(server, token, exchange_seconds=exchange_seconds)
