"""Asks event log and startd whether a job's last start is over: the evidence behind `end_proof`.

Each question is put to a helper process with a deadline: a log may lie on a file system that
hangs, and a startd that is cut off answers after a minute or never.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from htlease.condor.bindings_process import LOCATE_SECONDS, LOG_SECONDS, BindingsProcess
from htlease.condor.queued_ad import HELD
from htlease.condor.schedd import Plain, ScheddUnavailable
from htlease.errors import BadConfig
from htlease.rules.end_proof import Finding, LogEvent, of_log, of_queue, of_startd
from htlease_agent.reconcile.job_end import End

STARTD_SECONDS = 10.0
#: How long a startd that did not answer is not asked again: many jobs may have run there.
_QUIET_SECONDS = 60.0


class Evidence(Protocol):
    """Who can tell whether a start is proven to be over."""

    def finding(self, end: End) -> Finding:
        """Judge the start that this end is of; never raises."""
        ...


class AskedEvidence:
    """Looks into the event logs of an access point and asks the startds of its jobs."""

    def __init__(self, schedd_name: str | None) -> None:
        self._schedd_name = schedd_name
        self._process = BindingsProcess()
        #: Address of a startd that was silent -> when it may be asked again, monotonic.
        self._silent_until: dict[str, float] = {}

    def close(self) -> None:
        """End the process that asks."""
        self._process.close()

    def finding(self, end: End) -> Finding:
        """Judge the start that this end is of; never raises."""
        reasons = []
        # A job that is held now may have run again before its log is read.
        if end.status != HELD:
            for events in self._logs(end):
                by_log = of_log(events, end.job)
                if by_log.is_proof:
                    of_its_queue = of_queue(end.global_job_id, self._queue_born_at())
                    if of_its_queue.is_proof:
                        return by_log
                    by_log = of_its_queue
                reasons.append(by_log.why)
        by_startd = of_startd(end.global_job_id, end.job, self._slots(end.job.startd))
        if by_startd.is_proof:
            return by_startd
        return Finding(False, "; ".join(dict.fromkeys([*reasons, by_startd.why])))

    def _logs(self, end: End) -> Sequence[Sequence[LogEvent]]:
        job = end.global_job_id.rpartition("#")[0].rpartition("#")[2]
        paths = [] if end.log is None else [end.log]
        try:
            read = self._process.call("read_job_log", [paths, job], LOG_SECONDS, "the event log")
        except ScheddUnavailable:
            return []
        return [[LogEvent(*event) for event in log] for log in read]

    def _queue_born_at(self) -> int | None:
        try:
            born_at: int | None = self._process.call(
                "queue_birthdate", [self._schedd_name], LOCATE_SECONDS, "the schedd"
            )
        except (BadConfig, ScheddUnavailable):
            return None
        return born_at

    def _slots(self, startd: str | None) -> list[dict[str, Plain]] | None:
        if startd is None or self._silent_until.get(startd, 0.0) > time.monotonic():
            return None
        try:
            slots: list[dict[str, Plain]] = self._process.call(
                "read_slots", [startd], STARTD_SECONDS, f"the startd {startd}"
            )
        except ScheddUnavailable:
            now = time.monotonic()
            self._silent_until = {one: at for one, at in self._silent_until.items() if at > now}
            self._silent_until[startd] = now + _QUIET_SECONDS
            return None
        return slots
