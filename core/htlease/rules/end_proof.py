"""What proves that one start of a job is over, so that the lease of its holder may end early; pure.

Three things do, and nothing else:

    (a) the newcomer runs in the holder's own slot          the server sees it, see `acquire`
    (b) the startd that ran the start has it no more        `of_startd`
    (c) the event log has an end that the starter told      `of_log`

Neither the queue, nor the history, nor the shadow's exit, nor 009, 012 or an epoch ad: with the
execution point cut off, all of them are there while the payload lives. A vacate's 004 is written
before the starter is asked, a hold's or a removal's also when the starter was given up, so that
after a 004 the startd has to say it; only "terminated and was requeued" is the starter's own word.
A schedd that has lost its job queue gives the numbers of its jobs again, so that what the log has
under a number may be another job's.
Source: measured on 23.9.6 and 25.14.1; docs/decisions/0017-proof-of-an-end.md.

The same functions serve the agent, the DAG scripts and the commands of the access point.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Numbers of HTCondor's job events. Source: manual, "Job Event Log Codes".
SUBMITTED, STARTED, EVICTED, TERMINATED = 0, 1, 4, 5
DISCONNECTED, RECONNECTED, RECONNECT_FAILED = 22, 23, 24

VANILLA, SCHEDULER, JAVA, LOCAL = 5, 7, 10, 12
#: Their processes are children of the schedd or of a local starter: no connection can be lost.
_ON_ACCESS_POINT = (SCHEDULER, LOCAL)

#: What of a job's ad is looked at here.
ATTRIBUTES = (
    *("JobUniverse", "WantDocker", "WantContainer", "WantSIF", "WantSandboxImage"),
    *("JobLeaseDuration", "PublicClaimId", "LastPublicClaimId"),
)
#: A startd behind the shared port has a name there that no later startd has.
_INSTANCE = re.compile(r"[?&](sock=startd_[^&>]+)")


class LogEvent(NamedTuple):
    """One event of one job."""

    number: int
    #: A 004 which says that the job had terminated and goes back to the queue.
    is_requeue: bool = False


class Job(NamedTuple):
    """What of a job decides which proofs count."""

    universe: int | None
    #: Containers that are no children of the starter may outlive it.
    is_docker: bool
    #: A starter that has lost its shadow ends its job within a known time.
    has_job_lease: bool
    #: Address of the startd that ran the last start; None where it does not name one instance.
    startd: str | None


class Finding(NamedTuple):
    """Whether a start is proven to be over, and in words by what, or why it is not."""

    is_proof: bool
    why: str


def job_from(ad: Mapping[str, object]) -> Job:
    """Read a job's ad; what it does not say in plain numbers and texts proves nothing."""
    universe, lease = ad.get("JobUniverse"), ad.get("JobLeaseDuration")
    # An image of the container universe that is neither file nor folder may be run by docker.
    is_file = _is_true(ad, "WantSIF") or _is_true(ad, "WantSandboxImage")
    claim = ad.get("LastPublicClaimId") or ad.get("PublicClaimId")
    address = claim.partition("#")[0] if isinstance(claim, str) else ""
    return Job(
        universe if isinstance(universe, int) else None,
        _is_true(ad, "WantDocker") or (_is_true(ad, "WantContainer") and not is_file),
        isinstance(lease, int) and lease > 0,
        address if _INSTANCE.search(address) else None,
    )


def of_queue(global_job_id: str, queue_born_at: int | None) -> Finding:
    """Judge whether what is known of a job by its number alone is known of this job.

    `queue_born_at` is the JobQueueBirthdate of its schedd, seconds since 1970, asked for after
    what is to be judged was read. A schedd without its old queue has a later one, and says "no
    such job" without an error. Source: measured on 23.9.6 and 25.14.1.
    """
    submitted_at = global_job_id.rpartition("#")[2]
    if not submitted_at.isdecimal():
        return Finding(False, "its GlobalJobId does not tell when it was submitted")
    if queue_born_at is None:
        return Finding(False, "its schedd does not tell how old its job queue is")
    if int(submitted_at) < queue_born_at:
        return Finding(False, "its schedd has lost the job queue that it was in")
    return Finding(True, "its schedd has the job queue that it was in")


def of_log(events: Iterable[LogEvent], job: Job) -> Finding:
    """Judge the last start of a job by its event log, oldest event first; needs `of_queue` too.

    A log that ends too early proves nothing, so it may be read while it is written.
    """
    if job.is_docker:
        return Finding(False, "a container is no child of its starter and may outlive it")
    if job.universe not in (VANILLA, JAVA, *_ON_ACCESS_POINT):
        return Finding(False, "the event log does not tell of every process of such a job")
    if not job.has_job_lease and job.universe not in _ON_ACCESS_POINT:
        return Finding(False, "without job_lease_duration the event log is no proof")
    events = list(events)
    if sum(event.number == SUBMITTED for event in events) > 1:
        return Finding(False, "the event log has several jobs of its number")
    after = _after_last_start(events)
    if after is None:
        return Finding(False, "the event log has no start of it")
    is_lost = False
    for event in after:
        if event.number == RECONNECT_FAILED:
            return Finding(False, "its starter was lost and did not come back (event 024)")
        if event.number in (DISCONNECTED, RECONNECTED):
            is_lost = event.number == DISCONNECTED
        elif event.number in (EVICTED, TERMINATED):
            if is_lost:
                return Finding(False, "its starter was lost at the end (event 022)")
            if event.number == TERMINATED:
                return Finding(True, "the event log has its termination (005)")
            if event.is_requeue:
                return Finding(True, "the event log has its termination and requeue (004)")
            return Finding(False, "an eviction (004) may be logged before its processes end")
    return Finding(False, "the event log has no end of it")


def _after_last_start(events: Iterable[LogEvent]) -> list[LogEvent] | None:
    """Return what follows the last 001 of the job; None when it has not started."""
    after: list[LogEvent] | None = None
    for event in events:
        if event.number == STARTED:
            after = []
        elif after is not None:
            after.append(event)
    return after


def of_startd(
    global_job_id: str, job: Job, slots: Iterable[Mapping[str, object]] | None
) -> Finding:
    """Judge the last start of a job by the slots of which its startd told when asked directly.

    `slots` have `MyAddress` and, where a job runs, `GlobalJobId`; None when nobody answered.
    """
    if job.is_docker:
        return Finding(False, "a container is no child of its starter and may outlive it")
    if job.universe not in (VANILLA, JAVA):
        return Finding(False, "no startd has all processes of such a job")
    if job.startd is None:
        return Finding(False, "its ad does not name the startd that ran it")
    if slots is None:
        return Finding(False, "the startd that ran it does not answer")
    ours = [slot for slot in slots if _instance(slot.get("MyAddress")) == _instance(job.startd)]
    if not ours:
        return Finding(False, "another startd answers in the place of the one that ran it")
    if any(slot.get("GlobalJobId") == global_job_id for slot in ours):
        return Finding(False, "the startd that ran it has it still")
    return Finding(True, "the startd that ran it has it no more")


def _instance(address: object) -> tuple[str, str] | None:
    """Return host and port of a startd, and its name behind the shared port."""
    found = _INSTANCE.search(address) if isinstance(address, str) else None
    return None if found is None else (found.string.partition("?")[0], found[1])


def _is_true(ad: Mapping[str, object], name: str) -> bool:
    return ad.get(name) is True
