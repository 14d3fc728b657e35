"""Maintenance windows: what a PUT makes of them, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from htlease.protocol import rfc3339
from htlease_server.documents import Maintenance, Window
from htlease_server.store import MaintenanceRow

#: Longer than any outage that is announced; a typing error should not keep leases for years.
WINDOW_MAX_SECONDS = 90 * 86400.0


@dataclass(frozen=True)
class PutMaintenance:
    """A window as somebody wants it: until when, from now on; 0 ends the one that is open."""

    ends_in_seconds: float
    reason: str | None = None

    def row(self, windows: Iterable[MaintenanceRow], now: float, actor: str) -> MaintenanceRow:
        """Return the window that is open now with its new end, or else a new one."""
        until_at = now + self.ends_in_seconds
        for window in windows:
            if window.started_at <= now < window.until_at:
                return window._replace(
                    until_at=until_at, reason=self.reason or window.reason, actor=actor
                )
        return MaintenanceRow(now, until_at, self.reason, actor)


def maintenance_document(windows: Iterable[MaintenanceRow], now: float) -> Maintenance:
    """Return all windows, newest first, and the one that is open, or None."""
    documents: list[Window] = [
        {
            "started_at": rfc3339(window.started_at),
            "until_at": rfc3339(window.until_at),
            "is_open": window.started_at <= now < window.until_at,
            "reason": window.reason,
            "actor": window.actor,
        }
        for window in sorted(windows, reverse=True)
    ]
    return {
        "open": next((window for window in documents if window["is_open"]), None),
        "windows": documents,
    }
