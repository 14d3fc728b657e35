"""Maintenance windows: what each change makes of them, and how they are shown. Pure.

A window that has begun is never undone, only ended: holders were told of deadlines that it gave
them, be it for an instant. One that is to begin later can be anything until then. A withdrawn
window stays in the store, as one that ends before it begins, so that every change is a row.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from htlease.rules import messages as m
from htlease.wire.protocol import rfc3339
from htlease_server.engine.site.audit import ANNOUNCE, PUT_MAINTENANCE, WITHDRAW, AuditEntry
from htlease_server.models.response_models import Maintenance, Window
from htlease_server.store.base import MaintenanceRow

#: Longer than any outage that is announced; a typing error should not keep leases for years.
WINDOW_MAX_SECONDS = 90 * 86400.0
#: How far ahead a window may begin.
AHEAD_MAX_SECONDS = 2 * 366 * 86400.0

#: The end of a withdrawn window.
_NEVER = 0.0
_HOW_TO_LOOK = "`htlease maintenance status` shows what is announced"


class WindowChange(abc.ABC):
    """What somebody wants of the maintenance windows."""

    @abc.abstractmethod
    def rows(
        self, windows: Iterable[MaintenanceRow], now: float, actor: str
    ) -> tuple[MaintenanceRow, ...] | m.Rejection:
        """Return the windows that change, last the one that it is about, or why it cannot be."""

    @abc.abstractmethod
    def audit_entry(self) -> AuditEntry:
        """Return what the audit keeps of it."""


@dataclass(frozen=True)
class PutMaintenance(WindowChange):
    """A window from now on: until when; 0 ends what is open."""

    ends_in_seconds: float
    reason: str | None = None

    def rows(
        self, windows: Iterable[MaintenanceRow], now: float, actor: str
    ) -> tuple[MaintenanceRow, ...]:
        until_at = now + self.ends_in_seconds
        opened = [window for window in windows if _is_open(window, now)]
        if not opened:
            begun = MaintenanceRow(now, until_at, self.reason, actor)
            return (begun,) if self.ends_in_seconds else ()
        # More than one is open where an announced one has begun in another.
        return tuple(
            window._replace(until_at=until_at, reason=self.reason or window.reason, actor=actor)
            for window in opened
        )

    def audit_entry(self) -> AuditEntry:
        data = {"ends_in_seconds": self.ends_in_seconds, "reason": self.reason}
        return AuditEntry(PUT_MAINTENANCE, data=data)


@dataclass(frozen=True)
class Announce(WindowChange):
    """A window that begins later; instants are whole seconds since 1970, as the server counts."""

    starts_at: float
    until_at: float
    reason: str | None = None
    #: The begin of an announced window that this one replaces.
    instead_of: float | None = None

    def rows(
        self, windows: Iterable[MaintenanceRow], now: float, actor: str
    ) -> tuple[MaintenanceRow, ...] | m.Rejection:
        refused = self._why_not(now)
        if refused:
            return refused
        known = {window.started_at: window for window in windows}
        replaced = self.instead_of
        before = known.get(self.starts_at if replaced is None else replaced)
        if replaced is not None:
            refused = _why_fixed("instead_of", replaced, before, now)
            if refused:
                return refused
        reason = self.reason or (before.reason if before else None)
        row = MaintenanceRow(self.starts_at, self.until_at, reason, actor)
        if before is None or before.started_at == row.started_at:
            return (row,)
        return (_withdrawn(before, actor), row)

    def _why_not(self, now: float) -> m.Rejection | None:
        begin = rfc3339(self.starts_at)
        if self.starts_at <= now:
            why = f"{begin} is not ahead; `htlease maintenance start` begins a window now"
        elif self.starts_at > now + AHEAD_MAX_SECONDS:
            why = f"{begin} is more than two years ahead"
        elif not 0 < self.until_at - self.starts_at <= WINDOW_MAX_SECONDS:
            days = WINDOW_MAX_SECONDS / 86400
            why = f"{rfc3339(self.until_at)} is not after {begin}, or over {days:g} days after it"
            return m.Rejection("invalid", f"until_at: {why}", field="until_at")
        else:
            return None
        return m.Rejection("invalid", f"starts_at: {why}", field="starts_at")

    def audit_entry(self) -> AuditEntry:
        data: Mapping[str, Any] = {
            "starts_at": rfc3339(self.starts_at),
            "until_at": rfc3339(self.until_at),
            "instead_of": None if self.instead_of is None else rfc3339(self.instead_of),
            "reason": self.reason,
        }
        return AuditEntry(ANNOUNCE, data=data)


@dataclass(frozen=True)
class Withdraw(WindowChange):
    """An announced window shall not be, named by its begin."""

    starts_at: float

    def rows(
        self, windows: Iterable[MaintenanceRow], now: float, actor: str
    ) -> tuple[MaintenanceRow, ...] | m.Rejection:
        window = next((one for one in windows if one.started_at == self.starts_at), None)
        refused = _why_fixed("starts_at", self.starts_at, window, now)
        if refused:
            return refused
        assert window is not None
        return (_withdrawn(window, actor),)

    def audit_entry(self) -> AuditEntry:
        return AuditEntry(WITHDRAW, data={"starts_at": rfc3339(self.starts_at)})


def whole_seconds(at: float) -> float:
    """Return an instant as windows are announced, so that what is shown of a begin names it."""
    return float(math.floor(at))


def is_withdrawn(window: MaintenanceRow) -> bool:
    """Tell whether a window never was, or is not to be."""
    return window.until_at < window.started_at


def _is_open(window: MaintenanceRow, now: float) -> bool:
    return window.started_at <= now < window.until_at


def _withdrawn(window: MaintenanceRow, actor: str) -> MaintenanceRow:
    return window._replace(until_at=_NEVER, actor=actor)


def _why_fixed(
    field: str, starts_at: float, window: MaintenanceRow | None, now: float
) -> m.Rejection | None:
    """Say why a window cannot be moved or withdrawn; that it was already is no reason."""
    if window is None:
        why = f"no window is announced from {rfc3339(starts_at)}; {_HOW_TO_LOOK}"
        return m.Rejection("not-found", why)
    if window.started_at <= now and not is_withdrawn(window):
        why = (
            f"the window from {rfc3339(starts_at)} has begun; `htlease maintenance start` moves"
            " its end, `htlease maintenance end` ends it"
        )
        return m.Rejection("invalid", f"{field}: {why}", field=field)
    return None


def maintenance_document(windows: Iterable[MaintenanceRow], now: float) -> Maintenance:
    """Return all windows, newest first, the one that is open, and the next that is announced."""
    there = sorted((one for one in windows if not is_withdrawn(one)), reverse=True)
    opened = [window for window in there if _is_open(window, now)]
    prefetcher = [window for window in there if window.started_at > now]
    last = max(opened, key=lambda window: window.until_at, default=None)
    return {
        "open": None if last is None else _document(last, now),
        "next": _document(prefetcher[-1], now) if prefetcher else None,
        "windows": [_document(window, now) for window in there],
    }


def _document(window: MaintenanceRow, now: float) -> Window:
    return {
        "started_at": rfc3339(window.started_at),
        "until_at": rfc3339(window.until_at),
        "is_open": _is_open(window, now),
        "is_announced": window.started_at > now,
        "reason": window.reason,
        "actor": window.actor,
    }
