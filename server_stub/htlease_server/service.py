"""What systemd is told: that the server is up, that it lives, that it stops.

The protocol is one datagram to the socket that `NOTIFY_SOCKET` names. Source: sd_notify(3),
sd_watchdog_enabled(3). Without systemd nothing happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping


class Manager:
    """The service manager that started this process, if one did."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environ.get("WATCHDOG_USEC", "") if is_ours else ""
        #: How often it wants a sign of life, or None; half of its limit, as it recommends.
        self.alive_every_seconds = int(limit) / 2_000_000 if limit.isdigit() else None

    def tell(self, *lines: str) -> None:
        """Send assignments such as `READY=1`; one that cannot be sent is not worth a failure."""
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), address)
            except OSError:
                return

    def sign_of_life(self, is_alive: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
        """Return what the event loop calls every so often; it says nothing for a dead server."""

        async def tell() -> None:
            if is_alive():
                self.tell("WATCHDOG=1")

        return tell
