"""Reads queue and history of one schedd for a daemon, which must not wait longer than it says."""

from __future__ import annotations

import re
from collections.abc import Sequence

from htlease.condor.bindings_process import (
    HISTORY_SECONDS,
    JOBS_SECONDS,
    LOCATE_SECONDS,
    Ads,
    BindingsProcess,
)
from htlease.condor.schedd import Plain
from htlease.errors import InvalidField
from htlease_agent.peer_credentials import PeerCredentials

_JOB = re.compile(r"(\d{1,18})\.(\d{1,18})")


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

    def read_job_of(
        self, peer: PeerCredentials, job: str, attributes: Sequence[str]
    ) -> dict[str, Plain] | None:
        """Return the ad of a job, `CLUSTER.PROC`, for which the peer may speak; None else.

        One answer for others' jobs and for none: who may not ask learns nothing about them.
        Raises InvalidField or ScheddUnavailable.
        """
        found = _JOB.fullmatch(job)
        if found is None:
            raise InvalidField("job", f"{job!r} is not CLUSTER.PROC")
        constraint = f"ClusterId == {found[1]} && ProcId == {found[2]}"
        ads = self.read_jobs(constraint, (*attributes, "Owner"))
        if not ads or not peer.may_speak_for(str(ads[0].get("Owner"))):
            return None
        return ads[0]

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
