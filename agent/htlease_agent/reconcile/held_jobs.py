"""Tells the server which jobs are held and which are not any more, so that a person can see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from htlease.client.client import LeaseServer
from htlease.condor.hold_codes import held_by
from htlease.condor.queued_ad import HELD, REMOVED, integer
from htlease.condor.schedd import Plain
from htlease.errors import InvalidField, Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_agent.queue_reader import QueueReader
from htlease_agent.reconcile.job_end import is_stamp
from htlease_agent.reconcile.named_key import key_named
from htlease_agent.reconcile.own_keys import own_key

#: What is read of a held job.
ATTRIBUTES = (
    *("GlobalJobId", "HTLeaseKey", "Environment", "Env", "ClusterId", "ProcId", "QDate"),
    "HTLeaseStamp",
    *("HoldReason", "HoldReasonCode", "HoldReasonSubCode"),
)
_NOTHING = (None, None)
#: Ten thousand jobs that are held at once are told over several looks.
_AT_ONCE = 200


class Holds:
    """Remembers what was told; after a restart it tells again, and the server knows it already."""

    def __init__(self, server: LeaseServer) -> None:
        self._server = server
        #: GlobalJobId -> key, if it has one, and the hold that was told.
        self._told: dict[str, tuple[SubjobKey | None, m.Observed | None]] = {}

    def look(self, ads: Sequence[Mapping[str, Plain]], queue: QueueReader) -> None:
        """Tell what is news in the ads of all held jobs; raises ServerUnavailable."""
        held = {hold.global_job_id: (ad, hold) for ad, hold in ((ad, _hold_in(ad)) for ad in ads)}
        news = [job for job, (_, hold) in held.items() if self._told.get(job, _NOTHING)[1] != hold]
        for job in news[:_AT_ONCE]:
            ad, hold = held[job]
            key = self._key_of(ad, job)
            if key is not None:
                self._tell(key, hold)
            self._told[job] = key, hold
        for job in [job for job in self._told if job not in held][:_AT_ONCE]:
            key, _ = self._told[job]
            found = queue.read_jobs(f'GlobalJobId == "{job}"', ("JobStatus",))
            if key and found and found[0].get("JobStatus") not in (HELD, REMOVED):
                self._tell(key, m.Observed(job, "released"))
            del self._told[job]  # a removal is told when it has left the queue

    def _key_of(self, ad: Mapping[str, Plain], job: str) -> SubjobKey | None:
        """Return the key of a job's subjob, be it the stamp or the job's own choice."""
        try:
            key = SubjobKey.parse(key_named(ad))
            return own_key(self._server, key, job) if is_stamp(str(key), ad) else key
        except (InvalidField, Refused):
            return None

    def _tell(self, key: SubjobKey, observed: m.Observed) -> None:
        try:
            self._server.command(key, observed)
        except Refused:
            pass  # no start of it has spoken yet, or its key is none


def _hold_in(ad: Mapping[str, Plain]) -> m.Observed:
    code, subcode = integer(ad, "HoldReasonCode"), integer(ad, "HoldReasonSubCode")
    reason = str(ad.get("HoldReason") or "") or None
    job = str(ad.get("GlobalJobId") or "unknown")
    return m.Observed(job, "held", held_by(code, subcode), reason, code, subcode)
