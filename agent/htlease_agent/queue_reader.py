"""Reads queue and history of one schedd for a daemon, which must not wait longer than it says."""

from __future__ import annotations

from collections.abc import Sequence

from htlease.condor.bindings_process import (
    HISTORY_SECONDS,
    JOBS_SECONDS,
    LOCATE_SECONDS,
    Ads,
    BindingsProcess,
)


class QueueReader:
    """Reads from one schedd, for one thread at a time."""

    def __init__(self, schedd_name: str | None) -> None:
        """Prepare to read; None names the schedd of this machine."""
        self._schedd_name = schedd_name
        self._process = BindingsProcess()

    def read_jobs(self, constraint: str, attributes: Sequence[str]) -> Ads:
        """Do as `schedd.read_jobs`; raises ScheddUnavailable."""
        arguments = [constraint, list(attributes), self._schedd_name]
        ads: Ads = self._process.call("read_jobs", arguments, JOBS_SECONDS, "the schedd")
        return ads

    def read_history(
        self, constraint: str, attributes: Sequence[str], until: str | None, most: int
    ) -> Ads:
        """Do as `schedd.read_history`; raises ScheddUnavailable."""
        arguments = [constraint, list(attributes), until, most, self._schedd_name]
        ads: Ads = self._process.call("read_history", arguments, HISTORY_SECONDS, "the schedd")
        return ads

    def birthdate(self) -> int | None:
        """Do as `schedd.queue_birthdate`; raises ScheddUnavailable."""
        arguments = [self._schedd_name]
        born_at: int | None = self._process.call(
            "queue_birthdate", arguments, LOCATE_SECONDS, "the schedd"
        )
        return born_at

    def close(self) -> None:
        """End the process."""
        self._process.close()
