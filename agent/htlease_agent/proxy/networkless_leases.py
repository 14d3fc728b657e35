"""Leases that the agent keeps for starts without any network: taken here, renewed here.

One start is one start of the schedd's (`JobCurrentStartDate`, which a reconnect leaves alone): as
long as the queue shows it running, its lease is renewed. What it has to say itself comes in its
journal, late and in order. Nonces lie in files of mode 0600, so that an agent that was killed goes
on with the same leases.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from htlease.condor.queued_ad import RUNNING, SUSPENDED, TRANSFERRING_OUTPUT, count, job_number
from htlease.condor.schedd import Plain
from htlease.errors import BadConfig, Refused
from htlease.rules import end_proof
from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, Place, ReadFrom, SubjobKey, start_number
from htlease.wire.chirp_journal import PARTS, Entry, Unreadable, from_attributes, pack
from htlease.wire.protocol import SUBJOB_CALLS, body_of, command_path, subjob_path
from htlease.wire.retry import Clock, send
from htlease_agent.queue_reader import QueueReader

if TYPE_CHECKING:
    from htlease.wire.transport import Transport

#: What `begin` reads of a job.
ATTRIBUTES = (
    *("GlobalJobId", "ClusterId", "ProcId", "NumJobStarts", "NumShadowStarts", "ShadowBday"),
    *("JobCurrentStartDate", "RemoteHost", *PARTS),
    *end_proof.ATTRIBUTES,
)
_LOOKED_AT = ("GlobalJobId", "JobStatus", "JobCurrentStartDate", *PARTS)
_RUNNING = (RUNNING, TRANSFERRING_OUTPUT, SUSPENDED)
_RENEW_PART = 1 / 4
_JOBS_AT_ONCE = 200
_FORGET_SECONDS = 8 * 86400.0
#: What a journal may ask for; fence and nonce are ours.
_CALLS = frozenset({"acquire", "renew", "exited", "abandon"})
_PHASE_CALLS = frozenset({"enter", "complete", "fail"})

log = logging.getLogger("htlease_agent")


@dataclass(frozen=True)
class Start:
    """One start whose lease the agent keeps."""

    global_job_id: str
    job: str
    key: str
    shadow_starts: int
    started_at: int
    nonce: str
    ttl_seconds: float
    begun_at: float
    fence: int = 0
    #: Number of the last entry of its journal that the server has answered.
    posted: int = 0
    #: Its lease has ended: there is nothing left to renew.
    is_over: bool = False

    @property
    def name(self) -> str:
        """What names the start, and its file."""
        text = f"{self.global_job_id}@{self.shadow_starts}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class NetworklessLeases:
    """All starts of one access point that have no network."""

    def __init__(self, transport: Transport, directory: Path, ttl_seconds: float) -> None:
        """Take up what an earlier agent kept; raises BadConfig."""
        self._transport = transport
        self._clock = Clock()
        self._directory = directory
        self._ttl_seconds = ttl_seconds
        self._lock = threading.Lock()
        self._starts: dict[str, Start] = {}
        self._renewed_at: dict[str, float] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in directory.glob("*.json"):
                start = Start(**json.loads(path.read_text()))
                self._starts[start.name] = start
        except (OSError, ValueError, TypeError) as error:
            raise BadConfig(f"{directory}: {error}; remove what cannot be read") from None

    # ------------------------------------------------------------ a start

    def begin(self, key: SubjobKey, ad: Mapping[str, Plain]) -> str:
        """Take the lease for a start and return its grant, packed.

        Raises Refused, with the code that the server has for it, or ServerUnavailable.
        """
        start = self._start_of(key, ad)
        for earlier in self._of_job(start.global_job_id):
            self._post_journal(earlier, ad)
        acquire = m.Acquire(
            nonce=start.nonce,
            evidence=Evidence(
                start_number(count(ad, "NumJobStarts") or 0, ReadFrom.JOB_AD),
                start.shadow_starts,
                count(ad, "ShadowBday"),
            ),
            place=_place_of(ad),
            global_job_id=start.global_job_id,
            host=str(ad.get("RemoteHost") or "") or None,
            ttl_seconds=start.ttl_seconds,
            heeds_flags=True,
        )
        try:
            grant = self._send(start, command_path(key, acquire), body_of(acquire, _new_id()))
        except Refused:
            self._forget(start)
            raise
        self._keep(replace(start, fence=grant["fence"]))
        return pack(grant)

    def _start_of(self, key: SubjobKey, ad: Mapping[str, Plain]) -> Start:
        """Return the start, known already when its hook asks again."""
        start = Start(
            str(ad["GlobalJobId"]),
            job_number(ad),
            str(key),
            count(ad, "NumShadowStarts") or 0,
            count(ad, "JobCurrentStartDate") or 0,
            secrets.token_hex(24),
            self._ttl_seconds,
            time.time(),
        )
        with self._lock:
            known = self._starts.get(start.name)
        if known is None:
            self._keep(start)  # before it is used: an agent that is killed now can ask again
        return known or start

    # ------------------------------------------------------------ looks at the queue

    def look(self, queue: QueueReader) -> None:
        """Post what came in and renew what runs; raises ServerUnavailable, ScheddUnavailable."""
        with self._lock:
            starts = list(self._starts.values())
        for at in range(0, len(starts), _JOBS_AT_ONCE):
            some = starts[at : at + _JOBS_AT_ONCE]
            jobs = {tuple(start.job.split(".")) for start in some}
            constraint = " || ".join(f"(ClusterId == {c} && ProcId == {p})" for c, p in jobs)
            ads = {ad["GlobalJobId"]: ad for ad in queue.read_jobs(constraint, _LOOKED_AT)}
            for start in some:
                ad = ads.get(start.global_job_id)
                if ad is not None:
                    self._look_at(start, ad)
                elif time.time() - start.begun_at > _FORGET_SECONDS:
                    self._forget(start)

    def _look_at(self, start: Start, ad: Mapping[str, Plain]) -> None:
        start = self._post_journal(start, ad)
        is_running = ad.get("JobStatus") in _RUNNING
        if ad.get("JobCurrentStartDate") != start.started_at:
            self._forget(start)  # a later start has begun, and whatever came was posted
        elif is_running and not start.is_over and start.fence:
            due_at = self._renewed_at.get(start.name, 0.0) + start.ttl_seconds * _RENEW_PART
            if time.monotonic() >= due_at:
                self._renew(start)

    def _renew(self, start: Start) -> None:
        command = m.Renew(start.fence, start.nonce)
        key = SubjobKey.parse(start.key)
        try:
            self._send(start, command_path(key, command), body_of(command, _new_id()))
            self._renewed_at[start.name] = time.monotonic()
        except Refused as refused:
            log.warning("%s: the lease of %s is not renewed: %s", key, start.job, refused)
            self._keep(replace(start, is_over=True))

    def job_ended(self, global_job_id: str, queue: QueueReader) -> None:
        """Post the rest of a job's journals, before its end is reported."""
        starts = self._of_job(global_job_id)
        if starts:
            constraint = f'GlobalJobId == "{global_job_id}"'
            ads = queue.read_jobs(constraint, _LOOKED_AT)
            ads = ads or queue.read_history(constraint, _LOOKED_AT, None, 1)
            for start in starts:
                for ad in ads:
                    self._post_journal(start, ad)

    def job_settled(self, global_job_id: str) -> None:
        """Forget a job of which nothing more will come."""
        for start in self._of_job(global_job_id):
            self._forget(start)

    # ------------------------------------------------------------ journals

    def _post_journal(self, start: Start, ad: Mapping[str, Plain]) -> Start:
        """Post what is new in a journal, in order; raises ServerUnavailable."""
        try:
            journal = from_attributes(ad)
        except Unreadable as error:
            log.warning("%s: the journal of %s cannot be read: %s", start.key, start.job, error)
            return start
        if journal is None or journal.fence != start.fence:
            return start
        for entry in journal.entries:
            if entry.number <= start.posted:
                continue
            is_end = self._post(start, entry)
            start = replace(start, posted=entry.number, is_over=start.is_over or is_end)
            self._keep(start)
        return start

    def _post(self, start: Start, entry: Entry) -> bool:
        """Post one entry; tell whether the lease has ended with it."""
        path = subjob_path(SubjobKey.parse(start.key))
        if entry.phase is not None and entry.call in _PHASE_CALLS:
            path += f"/phases/{quote(entry.phase, safe='')}/{entry.call}"
        elif entry.phase is None and entry.call in _CALLS and entry.call in SUBJOB_CALLS:
            path += f"/{entry.call}"
        else:
            log.warning("%s: %r in the journal of %s is no call", start.key, entry.call, start.job)
            return False
        text = f"{start.global_job_id} {start.fence} {entry.number}"
        body: dict[str, Any] = {
            **entry.fields,
            "nonce": start.nonce,
            # The same again after a crash, so that nothing is done twice.
            "request_id": hashlib.sha256(text.encode()).hexdigest()[:40],
        }
        if entry.client_at:
            body["client_at"] = entry.client_at
        if entry.call == "acquire":
            # It only brings the plan; who acquires, and where, was said when the start began.
            body.update(ttl_seconds=start.ttl_seconds, global_job_id=start.global_job_id)
        else:
            body["fence"] = start.fence
        try:
            self._send(start, path, body)
        except Refused as refused:
            log.warning(
                "%s: %s in the journal of %s is refused: %s",
                start.key,
                entry.call,
                start.job,
                refused,
            )
            return refused.code in ("superseded-attempt", "stale-fence")
        return entry.call in ("exited", "abandon")

    def _send(self, start: Start, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return send(self._transport, self._clock, "POST", path, body, 0.0)[0]

    # ------------------------------------------------------------ files

    def _of_job(self, global_job_id: str) -> list[Start]:
        with self._lock:
            found = [s for s in self._starts.values() if s.global_job_id == global_job_id]
        return sorted(found, key=lambda start: start.shadow_starts)

    def _keep(self, start: Start) -> None:
        path = self._directory / f"{start.name}.json"
        with self._lock:
            known = self._starts.get(start.name)
            if known is not None:  # the other thread may be further
                start = replace(start, posted=max(start.posted, known.posted))
            temporary = path.with_suffix(".new")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(start), file)
            temporary.replace(path)
            self._starts[start.name] = start

    def _forget(self, start: Start) -> None:
        with self._lock:
            self._starts.pop(start.name, None)
            self._renewed_at.pop(start.name, None)
            (self._directory / f"{start.name}.json").unlink(missing_ok=True)


def _place_of(ad: Mapping[str, Plain]) -> Place:
    """Return where a start runs, and nothing of a container that may outlive its starter."""
    if end_proof.job_from(ad).is_docker:
        return Place()
    slot, claim = ad.get("RemoteHost"), ad.get("PublicClaimId")
    is_whole = isinstance(claim, str) and claim.count("#") >= 2
    return Place(
        slot=slot if isinstance(slot, str) else None,
        startd="#".join(str(claim).split("#")[:2]) if is_whole else None,
    )


def _new_id() -> str:
    return secrets.token_hex(16)
