"""The POST script: settle one try of a node from what is true, and tell DAGMan."""

from __future__ import annotations

from htlease.errors import Refused
from htlease.rules.start_number import ReadFrom, start_number
from htlease_dagman.scripts.invocation import told
from htlease_dagman.scripts.node_script import Lease, NodeFails, RetryLater, Script
from htlease_dagman.scripts.post_decision import (
    RETRY_MAY_FOLLOW,
    SUPERSEDED,
    Standing,
    Verdict,
    judge,
    standing_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: A reconciler of the access point may be at work on the same subjob for a moment.
_WAIT_LEASE_SECONDS = 2.0


def post(script: Script) -> int:
    """Settle one try of a node and return the exit status; raises RetryLater or HTLeaseError."""
    returned = int(script.call.macros["RETURN"])
    standing = _look(script)
    if not (standing.is_announced or script.call.is_named_by_dagman):
        raise NodeFails(
            "neither PRE nor DAGMan's job ad ($_CONDOR_JOB_AD) names this try of the node, so "
            "nothing shows that it is the latest; let DAGMan call this script, as a job of its own"
        )
    jobs = script.of_jobs()
    unfinished = tuple(job.subjob for job in jobs if not _is_finished(job, returned))
    standing = standing._replace(jobs=len(jobs))
    if standing.is_overtaken:
        if standing.outcome == "complete":
            return 0
        raise RetryLater("a later submission of this node is at work; this one waits for its end")
    if returned == SUPERSEDED and _is_elsewhere(script, standing):
        raise RetryLater(f"the job was superseded; this waits for {standing.submission}")
    lease: Lease | None = None
    if standing.outcome is None:
        try:
            lease = _acquire(script, standing)
        except Refused as refused:
            if refused.code == "superseded-attempt":
                raise RetryLater(refused.detail) from None
            if refused.outcome is None:
                raise
            standing = _look(script)
    try:
        # The own name of a node with several jobs has no attempts.
        missing = unfinished if jobs else lease.missing if lease and standing.missing else ()
        return _settle(script, standing, lease, returned, missing)
    finally:
        if lease is not None:
            script.abandon(lease, "POST is done")


def _is_elsewhere(script: Script, standing: Standing) -> bool:
    """Tell whether another job than the one that has ended is to finish the subjob.

    Who waits for a start of the job itself waits in vain: it has left the queue.
    """
    is_own = f"#{script.call.macros['JOBID']}#" in standing.submission
    return standing.outcome is None and standing.is_seen and bool(standing.missing) and not is_own


def _look(script: Script) -> Standing:
    try:
        return standing_of(script.document(), script.call.try_id)
    except Refused as refused:
        if refused.code != "unknown-subjob":
            raise
        # A server that was set up anew since; what DAGMan knows has to do.
        return Standing(script.call.try_id, False, False, None, ())


def _acquire(script: Script, standing: Standing) -> Lease:
    try:
        return script.acquire(standing.submission, _WAIT_LEASE_SECONDS)
    except RetryLater:
        if not _report_end(script, standing.submission):
            raise
    return script.acquire(standing.submission)


def _is_finished(job: Script, returned: int) -> bool:
    """Settle one of several jobs of a node and tell whether it is complete; raises RetryLater."""
    standing = _look(job)
    if standing.outcome is not None:
        return standing.outcome == "complete"
    if standing.is_overtaken:
        raise RetryLater(f"a later submission of {job.subjob} is at work")
    lease = job.acquire(standing.submission, _WAIT_LEASE_SECONDS)
    missing = lease.missing if standing.missing else []
    # `$RETURN` is that of another job, perhaps; what this one completed is complete.
    verdict = judge(standing, missing, returned if missing else 0, None)
    _close(job, lease, verdict)
    return verdict.exit == 0


def _settle(
    script: Script,
    standing: Standing,
    lease: Lease | None,
    returned: int,
    missing: Sequence[str],
) -> int:
    words = script.chained.post
    assert script.record is not None
    chained = script.record.script_state.chained
    if words and chained is None:
        chained = script.run_user_script(words, lease)
        if chained == script.chained.post_defer:
            raise RetryLater(f"{words[0]} asked for later", is_counted=False)
        script.record.save(chained=chained)
    verdict = judge(standing, missing, returned, chained)
    if lease is not None and verdict.close is not None:
        _close(script, lease, verdict)
    script.say(f"{verdict.reason} ({verdict.close or 'nothing to write'})")
    return told(verdict.exit) if verdict.exit else 0


def _close(script: Script, lease: Lease, verdict: Verdict) -> None:
    for phase in verdict.shown_complete:
        script.send(f"phases/{phase}/enter", lease, is_underway=True)
        script.send(f"phases/{phase}/complete", lease)
    if verdict.close == "commit":
        script.send("commit", lease, reason=verdict.reason)
        return
    reason = verdict.reason
    if verdict.close == "failed" and script.call.retry < script.call.retries_max:
        reason += f"; retry {script.call.retry + 1} of {script.call.retries_max} {RETRY_MAY_FOLLOW}"
    script.send("settle", lease, outcome=verdict.close, reason=reason)


def _report_end(script: Script, submission: str) -> bool:
    """End the lease of a job whose starter died unheard, if that is proven; tell if it is.

    Else a remark says why not, and the lease runs out.
    """
    from htlease_dagman.scripts.queue_ad import number, read_ad  # loads what starts processes
    from htlease_dagman.scripts.start_over import NAMES, finding

    names = ("GlobalJobId", "NumJobStarts", "NumShadowStarts", "ExitCode", "ExitSignal", *NAMES)
    job = script.call.macros["JOBID"]
    ad = read_ad("condor_history", job, names) or read_ad("condor_q", job, names)
    if ad.get("GlobalJobId") != submission:
        return False
    found = finding(job, ad)
    if not found.is_proof:
        reason = f"DAGMan saw the end of the job; its lease has to run out: {found.why}"
        script.send("observed", global_job_id=submission, what="ended", reason=reason)
        return False
    starts = number(ad, "NumJobStarts")
    script.send(
        "ended",
        global_job_id=submission,
        job_starts=None if starts is None else start_number(starts, ReadFrom.AFTER_THE_END),
        shadow_starts=number(ad, "NumShadowStarts"),
        exit_code=number(ad, "ExitCode"),
        exit_signal=number(ad, "ExitSignal"),
        reason=f"DAGMan saw the end of the job, and {found.why}",
    )
    return True
