"""The PRE script: announce the submission, give its job a token, leave out what is complete."""

from __future__ import annotations

import os
from pathlib import Path

from htlease import messages as m
from htlease.client import Lease
from htlease.errors import Refused
from htlease_dagman.call import SKIP
from htlease_dagman.chain import told
from htlease_dagman.record import read_note
from htlease_dagman.script import Later, NodeFails, Script


def pre(script: Script) -> int:
    """Prepare one try of a node and return the exit status; raises Later or HTLeaseError."""
    try:
        _enroll(script)
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
    try:
        return _act(script, lease)
    finally:
        script.abandon(lease, "PRE is done")


def _enroll(script: Script) -> None:
    enroll = m.Enroll(script.call.try_id, script.call.retry)
    try:
        script.send(enroll)
    except Refused as refused:
        if refused.outcome != "cancelled":
            raise
        # Removing a DAG cancels what it had begun; submitting it again is the wish to go on. One
        # that was cancelled in this very run stays so.
        begun = script.document()["submissions"]
        if any((one["global_job_id"] or "").startswith(f"{script.call.dag}/") for one in begun):
            raise NodeFails(
                "was cancelled while this DAG was running; submit the DAG again to run it"
            ) from None
        script.send(m.Enroll(enroll.global_job_id, enroll.retry, force=True))


def _post_is_owed(script: Script) -> bool:
    """Tell whether the user's POST script still has to see the complete node."""
    if not script.scripts.post:
        return False
    note = read_note(script.settings.state_directory / "post" / script.call.node)
    return note is None or note.chained != 0


def _act(script: Script, lease: Lease) -> int:
    scripts = script.scripts
    write_token(script.settings.job_token_file(script.call.node), script.mint_job_token())
    status = script.run_chained(scripts.pre, lease) if scripts.pre else 0
    if status == 0:
        return 0
    if status == scripts.pre_defer:
        raise Later(f"{scripts.pre[0]} asked for later", is_counted=False)
    if status == scripts.pre_skip:
        reason = f"{scripts.pre[0]} said so (PRE_SKIP {status})"
        script.send(m.Settle(lease.fence, lease.nonce, "complete", reason))
        return SKIP
    script.send(m.Settle(lease.fence, lease.nonce, "failed", f"{scripts.pre[0]} exited {status}"))
    return told(status)


def write_token(path: Path, token: str) -> None:
    """Write a token for its owner alone; a job that is being submitted sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    new.replace(path)
