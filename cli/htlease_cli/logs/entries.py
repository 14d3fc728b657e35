"""One line of a workflow's log, and the order of lines from several sources; pure.

The server's history and HTCondor's event log are written under two clocks. Their lines are put in
order by the time they carry, which is good to read and proves nothing: order among attempts is
the fence's business.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from htlease.condor.job_event import JobEvent
from htlease.wire.protocol import seconds_of
from htlease_cli.show.attempts import Event
from htlease_cli.show.timeline import told

#: Fields of an event of the job's log that say something to a person.
_TELLING = (
    "ExecuteHost",
    "SubmitHost",
    "Reason",
    "HoldReason",
    "ReturnValue",
    "TerminatedBySignal",
)
_EXECUTE = 1


@dataclass(frozen=True)
class Entry:
    """A line of the collated log."""

    #: Seconds since 1970, on the clock of whoever wrote it.
    at: float
    node: str
    #: Number of the attempt that it belongs to; None where it belongs to none, or to any.
    attempt: int | None
    #: `server` or `condor`.
    source: str
    text: str


def from_history(node: str, events: Sequence[Event]) -> list[Entry]:
    """Return a subjob's history as lines."""
    entries = []
    number_of_fence = {
        event["fence"]: event["attempt_number"]
        for event in events
        if event["event"] == "lease-acquired" and event["kind"] == "job"
    }
    for event, (_, _, _, phase, fence, what, why) in told(events):
        text = " ".join(part for part in (phase, what) if part)
        text += f" (fence {fence})" if fence else ""
        text += f": {why}" if why else ""
        number = number_of_fence.get(event.get("fence", -1))
        entries.append(Entry(seconds_of(event["at"]), node, number, "server", text))
    return entries


def from_event_log(node: str, events: Iterable[JobEvent]) -> list[Entry]:
    """Return a job's event log as lines; the attempt is the count of its executions so far."""
    entries, starts = [], 0
    for event in events:
        starts += event.number == _EXECUTE
        told = [f"{name} {event.fields[name]}" for name in _TELLING if name in event.fields]
        text = f"{event.number:03} {event.name.lower().replace('_', ' ')}"
        text += f": {', '.join(told)}" if told else ""
        entries.append(Entry(event.at, node, starts or None, "condor", text))
    return entries


def in_order(
    entries: Iterable[Entry], node: str | None = None, attempt: int | None = None
) -> list[Entry]:
    """Return the lines of a node, or of one attempt of it, by time; ties stay as they were."""
    wanted = (
        entry
        for entry in entries
        if node in (None, entry.node) and attempt in (None, entry.attempt)
    )
    return sorted(wanted, key=lambda entry: entry.at)


def line_of(entry: Entry, node_width: int) -> str:
    """Return a line as people read it: when (UTC), node, attempt, who wrote it, what."""
    moment = datetime.datetime.fromtimestamp(entry.at, datetime.timezone.utc)
    number = "-" if entry.attempt is None else str(entry.attempt)
    return (
        f"{moment:%Y-%m-%d %H:%M:%S}  {entry.node.ljust(node_width)}  {number:>3}  "
        f"{entry.source:<6}  {entry.text}"
    )
