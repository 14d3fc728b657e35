"""The POST script: settle one try of a node from what is true, and tell DAGMan."""

from __future__ import annotations

import shutil
import subprocess

from htlease import messages as m
from htlease.attempt import ReadFrom, start_number
from htlease.client import Lease
from htlease.errors import Refused
from htlease_dagman.chain import told
from htlease_dagman.script import Later, Script
from htlease_dagman.verdict import SUPERSEDED, Standing, Verdict, judge, standing_of

#: A reconciler of the access point may be at work on the same subjob for a moment.
_WAIT_LEASE_SECONDS = 2.0
_HISTORY_SECONDS = 10.0


def post(script: Script) -> int:
    """Settle one try of a node and return the exit status; raises Later or HTLeaseError."""
    returned = int(script.call.macros["RETURN"])
    standing = _look(script)
    if standing.is_overtaken:
        if standing.outcome == "complete":
            return 0
        raise Later("a later submission of this node is at work; this one waits for its end")
    if returned == SUPERSEDED and standing.missing and standing.outcome is None:
        raise Later("the job was superseded; this waits for the attempt that took over")
    lease: Lease | None = None
    if standing.outcome is None:
        try:
            lease = _acquire(script, standing)
        except Refused as refused:
            if refused.code == "superseded-attempt":
                raise Later(refused.detail) from None
            if refused.outcome is None:
                raise
            standing = _look(script)
    try:
        return _settle(script, standing, lease, returned)
    finally:
        if lease is not None:
            script.abandon(lease, "POST is done")


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
    except Later:
        if not _report_end(script, standing.submission):
            raise
    return script.acquire(standing.submission)


def _settle(script: Script, standing: Standing, lease: Lease | None, returned: int) -> int:
    words = script.scripts.post
    chained = script.record.note.chained
    if words and chained is None:
        chained = script.run_chained(words, lease)
        if chained == script.scripts.post_defer:
            raise Later(f"{words[0]} asked for later", is_counted=False)
        script.record.save(chained=chained)
    missing = [p.name for p in lease.grant.phases if not p.completed] if lease else []
    verdict = judge(standing, missing if standing.missing else (), returned, chained)
    if lease is not None and verdict.close is not None:
        script.send(_closing(lease, verdict, script))
    script.say(f"{verdict.reason} ({verdict.close or 'nothing to write'})")
    return told(verdict.exit) if verdict.exit else 0


def _closing(lease: Lease, verdict: Verdict, script: Script) -> m.Command:
    if verdict.close == "commit":
        return m.Commit(lease.fence, lease.nonce, verdict.reason)
    reason = verdict.reason
    if verdict.close == "failed" and script.call.retry < script.call.retries_max:
        reason += f"; retry {script.call.retry + 1} of {script.call.retries_max} may follow"
    assert verdict.close is not None
    return m.Settle(lease.fence, lease.nonce, verdict.close, reason)


def _report_end(script: Script, submission: str) -> bool:
    """Report the end of the job that the history tells of; its starter may have died unheard."""
    program = shutil.which("condor_history")
    if program is None:
        return False
    names = ("GlobalJobId", "NumJobStarts", "NumShadowStarts", "ExitCode", "ExitSignal")
    ask = [program, script.call.macros["JOBID"], "-limit", "1", "-af:,", *names]
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=_HISTORY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = [word.strip() for word in asked.stdout.split(",")]
    if len(found) != len(names) or found[0] != submission:
        return False
    starts, shadow_starts, code, number = (int(w) if w.isdigit() else None for w in found[1:])
    script.send(
        m.Ended(
            submission,
            None if starts is None else start_number(starts, ReadFrom.AFTER_THE_END),
            shadow_starts,
            code,
            number,
            "DAGMan saw the end of the job",
        )
    )
    return True
