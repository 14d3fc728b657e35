"""The PRE script: announce the submission, give its job a token, leave out what is complete."""

from __future__ import annotations

import os

from htlease.errors import Refused
from htlease_dagman.scripts.invocation import SKIP, told
from htlease_dagman.scripts.node_record import read_script_state
from htlease_dagman.scripts.node_script import Lease, NodeFails, RetryLater, Script

#: `$DAG_STATUS` of a DAG that aborts (ABORT-DAG-ON) and of one that was removed. Source: measured
#: on 23.9.6 and 25.14.1.
CUT_SHORT = ("3", "4")


def pre(script: Script) -> int:
    """Prepare one try of a node and return the exit status; raises RetryLater or HTLeaseError."""
    if script.call.macros.get("DAG_STATUS") in CUT_SHORT and script.chained.kind == "final":
        from htlease_dagman.scripts.removals import tell_of_removals

        tell_of_removals(script)
    try:
        if _enroll(script) > 1:
            from htlease_dagman.scripts.previous_run import tell_of_removal

            tell_of_removal(script)
        _wait_for_flags(script)
        lease = script.acquire(script.call.try_id)
    except Refused as refused:
        if refused.code == "superseded-attempt":
            raise NodeFails(
                f"{refused.detail}; this DAG is not the last that was submitted for it"
            ) from None
        if refused.outcome != "complete":
            raise
        if _post_is_owed(script):
            script.say("complete, but its POST script is not: the job only looks in")
            return 0
        script.say("complete already: skipped")
        return SKIP
    why = "PRE is done"
    try:
        return _act(script, lease)
    except RetryLater as later:
        why = f"PRE will be called again: {later}"
        raise
    finally:
        script.abandon(lease, why)


def _enroll(script: Script) -> int:
    """Announce the try and return its epoch; more than 1 means that there were others before."""
    call = script.call
    try:
        return _enrolled(script)
    except Refused as refused:
        if refused.outcome == "complete" and script.chained.kind == "final":
            # It belongs to each run of the DAG and not to what the DAG makes.
            return _enrolled(script, force=True)
        if refused.outcome != "cancelled":
            raise
        # Removing a DAG cancels what it had begun; submitting it again is the wish to go on. One
        # that was cancelled in this very run stays so.
        begun = script.document()["submissions"]
        if any((one["global_job_id"] or "").startswith(f"{call.dag}/") for one in begun):
            raise NodeFails(
                "was cancelled while this DAG was running; submit the DAG again to run it"
            ) from None
        return _enrolled(script, force=True)


def _enrolled(script: Script, force: bool | None = None) -> int:
    call = script.call
    answer = script.send("enroll", global_job_id=call.try_id, retry=call.retry, force=force)
    epoch: int = answer["epoch"]
    return epoch


def _wait_for_flags(script: Script) -> None:
    """Put the node off while the phase that its job would enter first is held back.

    Asked before the lease is taken, so that waiting for weeks leaves no mark in the history.
    """
    down = script.flags_down()
    if not down:
        return
    document = script.document()
    if document["outcome"] is not None or not document["plan"]:
        return
    first = next((phase["name"] for phase in document["phases"] if phase["run"]), None)
    needs = next((p["needs"] for p in document["plan"]["phases"] if p["name"] == first), ())
    for name in needs:
        if name in down:
            why = f": {down[name]}" if down[name] else ""
            raise RetryLater(f"{first} needs {name}, which is down{why}", is_counted=False)


def _post_is_owed(script: Script) -> bool:
    """Tell whether the user's POST script still has to see the complete node.

    It has when the job's own last phase closed the subjob and the script never ended well; what
    a script or a person closed is done with.
    """
    if not script.chained.post:
        return False
    script_state = read_script_state(
        os.path.join(script.settings.state_directory, "post", script.call.node)
    )
    if script_state is not None and script_state.chained == 0:
        return False
    attempts = script.document()["attempts"]
    return bool(attempts) and attempts[-1]["kind"] == "job"


def _act(script: Script, lease: Lease) -> int:
    user = script.chained
    jobs = script.of_jobs()
    for job in jobs:
        try:
            _enroll(job)
        except Refused as refused:
            if refused.outcome != "complete":  # a job that is complete ends as soon as it is told
                raise
    for job in jobs or [script]:
        write_token(script.settings.job_token_file(job.subjob), job.mint_job_token())
    status = script.run_user_script(user.pre, lease) if user.pre else 0
    if status == 0:
        return 0
    if status == user.pre_defer:
        raise RetryLater(f"{user.pre[0]} asked for later", is_counted=False)
    if status == user.pre_skip:
        reason = f"{user.pre[0]} said so (PRE_SKIP {status})"
        script.send("settle", lease, outcome="complete", reason=reason)
        return SKIP
    script.send("settle", lease, outcome="failed", reason=f"{user.pre[0]} exited {status}")
    return told(status)


def write_token(path: str, token: str) -> None:
    """Write a token for its owner alone; a job that is being submitted sees the old or the new."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.{os.getpid()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    os.replace(new, path)
