"""What the Job Router's hooks are answered: a routed copy's identity, and its source's end.

A hook names the source and the copy. Whose the source is, its subjob and how it ended are read
from the source's schedd; the copy's IDs are believed, since they only make the owner's own subjob
easier to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from htlease.client.client import Document, LeaseServer
from htlease.condor.schedd import Plain
from htlease.errors import InvalidField, Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_agent.job_tokens import brings_token
from htlease_agent.peer_credentials import PeerCredentials
from htlease_agent.queue_reader import QueueReader
from htlease_agent.reconcile import job_end
from htlease_agent.reconcile.named_key import key_named
from htlease_agent.reconcile.own_keys import own_key
from htlease_agent.reconcile.report_end import Reports
from htlease_agent.reconcile.routed_copies import links_of
from htlease_agent.workflow_owners import WorkflowOwners

_ATTRIBUTES = (
    *job_end.ATTRIBUTES,
    *("User", "HTLease", "SubmitterGlobalJobId", "Environment", "Env", "TransferInput"),
)


@dataclass(frozen=True)
class Routes:
    """Answers the router's hooks; every call may wait for schedd and server."""

    server: LeaseServer
    owners: WorkflowOwners
    #: Of the schedd of the sources.
    queue: QueueReader
    reports: Reports

    def answer(self, step: str, peer: PeerCredentials, body: Mapping[str, Any]) -> Document:
        """Return what the hook of this step is answered; {} when the job has no lease.

        Raises Refused, InvalidField, ServerUnavailable or ScheddUnavailable.
        """
        take = {
            "enroll": self._enroll,
            "record": self._record,
            "finalize": self._finalize,
            "cleanup": self._cleanup,
        }.get(step)
        if take is None:
            raise InvalidField("step", f"{step!r} is no step of a route")
        source = self._source(peer, body)
        if source.get("HTLease") is False or "HTLeaseKey" not in source:
            return {}
        key = SubjobKey.parse(key_named(source))
        if job_end.is_stamp(str(key), source):
            own = self._own_key(key, source, body)
            if own == key and brings_token(source):
                return {"is_to_come": True}  # the stamp shall leave no trace
            if own != key:
                if step in ("finalize", "cleanup"):
                    self._record(own, source, body)  # found by the source's ID from then on
                return take(own, source, body)  # the job's own token opened it
        self.owners.claim(key.workflow, str(source.get("User") or source["Owner"]))
        return take(key, source, body)

    def _own_key(
        self, stamp: SubjobKey, source: Mapping[str, Plain], body: Mapping[str, Any]
    ) -> SubjobKey:
        """Return the key that the copy chose when it began, or else an earlier copy."""
        for job in (body.get("global_job_id"), source["GlobalJobId"]):
            own = own_key(self.server, stamp, str(job)) if job else stamp
            if own != stamp:
                return own
        return stamp

    def _source(self, peer: PeerCredentials, body: Mapping[str, Any]) -> dict[str, Plain]:
        job = str(body.get("job"))
        ad = self.queue.read_job_of(peer, job, _ATTRIBUTES)
        if ad is None:
            raise Refused(
                "forbidden",
                f"user {peer.uid} has no job {job} in this queue; if the router's is another, "
                "start the agent with the router's CONDOR_CONFIG",
            )
        source, asked = ad.get("GlobalJobId"), body.get("source")
        if asked and asked != source:
            raise Refused(
                "forbidden",
                f"job {job} is {source} here and {asked} to the router: this agent reads another "
                "queue than the router's; start it with the router's CONDOR_CONFIG",
            )
        named = {"HTLeaseKey": body["key"]} if isinstance(body.get("key"), str) else {}
        return {**named, **ad}

    def _enroll(self, key: SubjobKey, source: Mapping[str, Plain], body: Any) -> Document:
        """Give the copy that is about to be submitted the next epoch."""
        return self._enrolled(key, m.Enroll(links=links_of(source, body)))

    def _record(self, key: SubjobKey, source: Mapping[str, Plain], body: Any) -> Document:
        """Make the IDs of a copy known, those too that come after the end."""
        command = m.Enroll(_text(body, "global_job_id"), links=links_of(source, body))
        return self._enrolled(key, command)

    def _enrolled(self, key: SubjobKey, command: m.Enroll) -> Document:
        try:
            return self.server.command(key, command, "epoch")
        except Refused as refused:
            if refused.code != "subjob-closed":
                raise
            return {}  # the copy's wrapper will be told, and ends

    def _finalize(self, key: SubjobKey, source: Mapping[str, Plain], body: Any) -> Document:
        """Close the subjob if all of the copy's outputs are back, and return what is so."""
        if not body.get("is_spooled"):
            self._report(source)
        return self._shown(key)

    def _cleanup(self, key: SubjobKey, source: Mapping[str, Plain], body: Any) -> Document:
        """Close the subjob if its source is at its end; a withdrawn copy closes nothing."""
        self._report(source)
        return self._shown(key)

    def _report(self, source: Mapping[str, Plain]) -> None:
        end = job_end.end_of(source)
        if end is not None:
            # What has to wait for the end of a lease is reported again by the watcher.
            self.reports.report(end)

    def _shown(self, key: SubjobKey) -> Document:
        subjob = self.server.subjob(key)
        return {
            "state": subjob["outcome"] or subjob["status"],
            "attempt": subjob["attempt_number"],
            "fence": subjob["fence"],
        }


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidField(name, f"{value!r} is not a text")
    return value
