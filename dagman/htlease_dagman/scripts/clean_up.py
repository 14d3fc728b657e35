"""PRE and POST of a staging workflow's clean-up: once for each submission whose stage-in failed.

It is the DAG's FINAL node, so the DAG ends as it does: well if PRE skips it, and badly otherwise,
for the clean-up itself may go well and the workflow has failed.
"""

from __future__ import annotations

from htlease.errors import Refused
from htlease_dagman.scripts.invocation import SKIP
from htlease_dagman.scripts.node_script import Script
from htlease_dagman.scripts.post import post as settle
from htlease_dagman.scripts.pre import write_token

FAILED = 1
STAGE_IN = "stage-in"
#: `$DAG_STATUS` while no node has failed, and when one has. Source: manual, "DAGMan scripts".
_DAG_OK, _DAG_NODE_FAILED = "0", "2"


def pre(script: Script) -> int:
    """Let the clean-up run if it is needed and was not done yet; raises RetryLater or HTLeaseError.

    A DAG that was removed is to be resumed, and what a failed compute job or stage-out leaves is
    worth keeping.
    """
    call = script.call
    status = call.macros.get("DAG_STATUS")
    if status == _DAG_OK:
        return SKIP
    if status != _DAG_NODE_FAILED or _outcome(script.of(STAGE_IN)) != "failed":
        script.say("no stage-in has failed for good: nothing to clean up")
        return FAILED
    # What an earlier submission of the DAG has cleaned up is needed again; what this one has, not.
    script.send("enroll", global_job_id=call.try_id, retry=call.retry, force=True)
    try:
        lease = script.acquire(call.try_id)
    except Refused as refused:
        if refused.outcome is None:
            raise
        script.say(f"{refused.outcome} already in this submission of the DAG")
        return FAILED
    write_token(script.settings.job_token_file(script.subjob), script.mint_job_token())
    script.abandon(lease, "PRE is done")
    return 0


def post(script: Script) -> int:
    """Settle the clean-up, and fail the DAG; raises RetryLater or HTLeaseError."""
    settle(script)
    script.say("the workflow has failed, for its stage-in has; submit the DAG again to go on")
    return FAILED


def _outcome(script: Script) -> str | None:
    try:
        outcome: str | None = script.document()["outcome"]
    except Refused as refused:
        if refused.code != "unknown-subjob":
            raise
        return None
    return outcome
