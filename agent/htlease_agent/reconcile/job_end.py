"""What the end of a job in the queue or the history says about its subjob; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease.condor.hold_codes import removed_by
from htlease.condor.hold_remove_reasons import reason_of
from htlease.condor.queued_ad import COMPLETED, HELD, REMOVED, count
from htlease.condor.schedd import Plain
from htlease.errors import InvalidField
from htlease.rules import end_proof
from htlease.rules import messages as m
from htlease.rules.attempt import AttemptId, ReadFrom, start_number
from htlease.rules.plan import Plan
from htlease.rules.reasons import WALL_TIME

#: What is read of each job.
ATTRIBUTES = (
    *("GlobalJobId", "HTLeaseKey", "JobStatus", "NumJobStarts", "NumShadowStarts"),
    *("ExitBySignal", "ExitCode", "ExitSignal", "RemoveReason", "RoutedFromJobId"),
    *("HoldReason", "UserLog", "Iwd", "ClusterId", "ProcId", "QDate", "HTLeaseStamp"),
    *end_proof.ATTRIBUTES,
)


@dataclass(frozen=True)
class End:
    """A start that was a job's last, or after which a limit on run time holds the job."""

    global_job_id: str
    key: str
    #: REMOVED, COMPLETED or HELD.
    status: int
    job_starts: int | None
    shadow_starts: int | None
    exit_code: int | None
    exit_signal: int | None
    #: Why it was removed or is held.
    queue_reason: str
    #: The Job Router made this job, and settles it by its own hooks.
    is_routed_copy: bool
    #: Which proofs of its end count.
    job: end_proof.Job
    #: Path of its event log.
    log: str | None
    #: Its key is the access point's stamp, and may not be that of its subjob.
    is_stamped: bool = False

    @property
    def reason(self) -> str:
        """How it ended, for the history."""
        if self.status in (REMOVED, HELD):
            code = reason_of(self.queue_reason).code
            return f"{code}: {self.queue_reason}" if self.queue_reason else code
        if self.exit_signal is not None:
            return f"the job was killed by signal {self.exit_signal}"
        return f"the job ended with exit code {self.exit_code}"

    def ended(self) -> m.Ended:
        """Return the command that ends the lease of this start; to be sent with proof alone."""
        return m.Ended(
            self.global_job_id,
            self.job_starts,
            self.shadow_starts,
            self.exit_code,
            self.exit_signal,
            self.reason,
        )

    def remark(self, why_no_proof: str) -> m.Observed:
        """Return the command that tells of the end and leaves the lease alone."""
        if self.status == REMOVED:
            reason = self.queue_reason or None
            return m.Observed(self.global_job_id, "removed", removed_by(self.queue_reason), reason)
        reason = f"{self.reason}; its lease has to run out: {why_no_proof}"
        return m.Observed(self.global_job_id, "ended", reason=reason)


@dataclass(frozen=True)
class Closing:
    """How a subjob is closed."""

    outcome: str
    reason: str
    #: Phases that the end of the job itself shows to be done.
    shown_complete: tuple[str, ...] = ()


def end_of(ad: Mapping[str, Plain]) -> End | None:
    """Return how a job ended; None when it did not, or has no subjob."""
    key, global_job_id, status = ad.get("HTLeaseKey"), ad.get("GlobalJobId"), ad.get("JobStatus")
    if not (isinstance(key, str) and isinstance(global_job_id, str)):
        return None
    if status not in (REMOVED, COMPLETED, HELD):
        return None
    reason_name = {REMOVED: "RemoveReason", HELD: "HoldReason"}.get(int(status), "")
    queue_reason = str(ad.get(reason_name, ""))
    if status == HELD and reason_of(queue_reason).code != WALL_TIME:
        return None  # who holds a job may release it
    starts = count(ad, "NumJobStarts")
    by_signal = status == COMPLETED and ad.get("ExitBySignal") is True
    log = ad.get("UserLog")
    return End(
        global_job_id,
        key,
        int(status),
        None if starts is None else start_number(starts, ReadFrom.AFTER_THE_END),
        count(ad, "NumShadowStarts"),
        # A removed job keeps the exit code of an earlier start.
        count(ad, "ExitCode") if status == COMPLETED and not by_signal else None,
        count(ad, "ExitSignal") if by_signal else None,
        queue_reason,
        "RoutedFromJobId" in ad,
        end_proof.job_from(ad),
        str(Path(str(ad.get("Iwd", "/"))) / log) if isinstance(log, str) else None,
        is_stamped(ad),
    )


def is_about(end: End, subjob: Mapping[str, Any]) -> bool:
    """Tell whether the job was the last to work on its subjob, by the server's document of it.

    A later submission has taken over otherwise, or this one never had the lease.
    """
    submissions = {entry["epoch"]: entry["global_job_id"] for entry in subjob["submissions"]}
    if submissions.get(subjob["epoch"]) != end.global_job_id:
        return False
    jobs = [attempt for attempt in subjob["attempts"] if attempt["kind"] == "job"]
    return not jobs or _job_of(jobs[-1]["attempt_id"]) == end.global_job_id


def _job_of(attempt_id: str) -> str | None:
    try:
        return AttemptId.parse(attempt_id).global_job_id
    except InvalidField:
        return None


def closing_of(end: End, subjob: Mapping[str, Any]) -> Closing | None:
    """Return how the subjob is to be closed; None when this end closes nothing."""
    if subjob["outcome"] is not None or end.is_routed_copy or not is_about(end, subjob):
        return None
    if end.status == HELD:
        return None  # its plan says whether that is the end of it, and the server goes by that
    if end.status == REMOVED:
        removal = reason_of(end.queue_reason)
        if removal.outcome is None:
            return None
        return Closing(removal.outcome, end.reason)
    if end.exit_code is None and end.exit_signal is None:
        return None  # the ad does not say how, and nothing else does
    if end.exit_code != 0:
        return Closing("failed", end.reason)
    plan = subjob["plan"] or {}
    if plan.get("profile"):
        return Closing("failed", f"{end.reason} in state {subjob['phase']}, which is no end")
    missing = [phase["name"] for phase in subjob["phases"] if phase["completed_fence"] is None]
    if not missing:
        return Closing("complete", end.reason)
    default = Plan.single().phases[0].name
    if missing == [default] and len(subjob["phases"]) == 1:
        return Closing("complete", end.reason, (default,))
    return Closing("failed", f"{end.reason}, but these are not complete: {', '.join(missing)}")


def is_stamped(ad: Mapping[str, Plain]) -> bool:
    """Tell whether a job's key is the one that the access point gives to a job that names none.

    It is made of `QDate`; the time in `GlobalJobId` may be a second later.
    """
    return is_stamp(str(ad.get("HTLeaseKey")), ad)


def is_stamp(key: str, ad: Mapping[str, Plain]) -> bool:
    """Tell the same of any key for a job; a routed copy has that of its source as HTLeaseStamp."""
    return key == ad.get("HTLeaseStamp") or key.endswith(
        f"-{ad.get('ClusterId')}-{ad.get('QDate')}/{ad.get('ProcId')}"
    )
