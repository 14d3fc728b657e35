"""What a starting job gets: a token for its own subjob, after a look into the queue.

The shadow's hook names the job and nothing else that is believed: who owns it and which subjob it
works on is read from the schedd, who asks is told by the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.client.client import Document, LeaseServer
from htlease.condor.schedd import Plain
from htlease.errors import Refused, ServerUnavailable
from htlease.rules.attempt import SubjobKey
from htlease_agent.peer_credentials import PeerCredentials
from htlease_agent.proxy.networkless_leases import ATTRIBUTES, NetworklessLeases
from htlease_agent.queue_reader import QueueReader
from htlease_agent.reconcile.job_end import is_stamp
from htlease_agent.reconcile.named_key import key_named
from htlease_agent.workflow_owners import WorkflowOwners

#: A site's transform sets HTLeaseNoPath on jobs for which no network leads to the server.
_ATTRIBUTES = (
    *("GlobalJobId", "User", "HTLeaseKey", "HTLease", "HTLeaseNoPath"),
    *("Environment", "Env", "TransferInput", "ClusterId", "ProcId", "QDate", "HTLeaseStamp"),
)
#: Refusals that the job has to hear; others are between agent and server.
_ABOUT_THE_LEASE = ("lease-still-live", "blocked", "superseded-attempt", "subjob-closed")


def brings_token(ad: Mapping[str, Plain]) -> bool:
    """Tell whether a token is among the files that a job brings along; pure."""
    files = re.split(r"[,\s]+", str(ad.get("TransferInput", "")))
    return any(Path(file).name == "htlease.token" for file in files)


@dataclass(frozen=True)
class JobTokens:
    """Answers the shadow's hook; every call may wait for schedd and server."""

    server: LeaseServer
    owners: WorkflowOwners
    queue: QueueReader
    token_ttl_seconds: float
    chirp: NetworklessLeases

    def answer(self, peer: PeerCredentials, job: str, has_no_path: bool) -> Document:
        """Return what the job named `CLUSTER.PROC` is given; {} when it has no lease.

        With `has_no_path` its lease is kept here, as for a job whose ad says so.
        Raises InvalidField, Refused, ServerUnavailable or ScheddUnavailable.
        """
        ad = self.queue.read_job_of(peer, job, _ATTRIBUTES)
        if ad is None:
            raise Refused("forbidden", f"user {peer.uid} has no job {job} in this queue")
        if ad.get("HTLease") is False or "HTLeaseKey" not in ad:
            return {}
        key = SubjobKey.parse(key_named(ad))
        if is_stamp(str(key), ad) and brings_token(ad):
            return {}  # its owner chose a workflow by the token; the stamp shall leave no trace
        try:
            self.owners.claim(key.workflow, str(ad.get("User") or ad["Owner"]))
            if has_no_path or ad.get("HTLeaseNoPath") is True:
                return {"grant": self._begin(peer, job, key)}
            minted = self.server.mint_token(key.workflow, key.subjob, self.token_ttl_seconds)
        except Refused as refused:
            if refused.status == 0:
                raise  # ours, and the job's fault
            if refused.code in _ABOUT_THE_LEASE:
                raise
            raise ServerUnavailable(f"the lease server refuses the agent: {refused}") from None
        return {"token": minted["token"]}

    def _begin(self, peer: PeerCredentials, job: str, key: SubjobKey) -> str:
        ad = self.queue.read_job_of(peer, job, ATTRIBUTES)
        if ad is None:
            raise Refused("forbidden", "the job has left the queue")
        return self.chirp.begin(key, ad)
