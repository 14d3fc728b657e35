"""What systemd is told: that the server is up, that it lives, that it stops.

The protocol is one datagram to the socket that `NOTIFY_SOCKET` names. Source: sd_notify(3),
sd_watchdog_enabled(3). Without systemd nothing happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Manager:
    """The service manager that started this process, if one did."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.is_watching = is_ours and environ.get("WATCHDOG_USEC", "").isdigit()

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

    def tell_alive(self) -> None:
        """Give a sign of life, to a manager that wants any."""
        if self.is_watching:
            self.tell("WATCHDOG=1")
