"""Where each node of a DAG stands and why it waits: from the server's documents; pure.

What the schedd of this machine says of a node's job is added where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from htlease.condor.hold_codes import held_by
from htlease.condor.queued_ad import HELD, IDLE, RUNNING
from htlease.condor.schedd import Plain
from htlease.wire.protocol import seconds_of
from htlease_cli.dag.progress import Standing
from htlease_cli.show.attempts import ending_text
from htlease_cli.show.timeline import closing_reason, hold_text, who_acted
from htlease_cli.tables import duration_text
from htlease_dagman.scripts.post_decision import RETRY_MAY_FOLLOW

Document = Mapping[str, Any]

#: What is read of a node's job in the queue.
JOB_ATTRIBUTES = (
    *("ClusterId", "ProcId", "GlobalJobId", "DAGNodeName", "DAGManJobId", "JobStatus"),
    *("HoldReason", "HoldReasonCode", "HoldReasonSubCode", "RemoteHost", "JobUniverse"),
    *("TransferringInput", "TransferringOutput"),
)
_KIND_OF_SCRIPT = {"pre": "PRE", "post": "POST", "operator": "an operator"}


@dataclass(frozen=True)
class Node:
    """A node as it is shown."""

    name: str
    #: `job`, `subdag`, `final` and so on; `queued` is one job of a node that queues several.
    kind: str
    standing: Standing
    phase: str | None = None
    #: DAGMan's try of the node, 1 = first; attempts of a try's job are counted on.
    tried: int | None = None
    attempt_number: int | None = None
    host: str | None = None
    expires_in_seconds: float | None = None
    #: Why it is where it is; empty when that says itself.
    why: str = ""


def not_begun(name: str, kind: str, is_ready: bool, gone: str | None = None) -> Node:
    """Return a node of which the server knows nothing; `gone` says why no DAGMan will start it."""
    if is_ready:
        return Node(name, kind, Standing.WAITING, why=gone or "to be started by DAGMan")
    return Node(name, kind, Standing.NOT_READY)


def node_of(
    name: str,
    kind: str,
    subjob: Document,
    down: Mapping[str, str | None],
    job: Mapping[str, Plain] | None = None,
    gone: str | None = None,
    retried_since: float = float("inf"),
) -> Node:
    """Return how a node stands; `subjob` is the whole document, or a line of the list.

    `down` has the flags that are down with their reasons, `job` the ad of its job in the queue. A
    try that failed after `retried_since` may yet be followed by another, unless DAGMan is `gone`.
    """
    standing, why = _standing(subjob, down, job or {})
    if gone is not None and standing is Standing.WAITING and subjob["status"] == "waiting":
        why = gone
    if gone is None and standing is Standing.FAILED and _may_be_retried(subjob, retried_since):
        standing = Standing.WAITING
    retry = next(
        (s["retry"] for s in reversed(subjob.get("submissions", ())) if s["retry"] is not None),
        None,
    )
    is_held = subjob["status"] in ("active", "recalled", "lapsed")
    return Node(
        name,
        kind,
        standing,
        _phase(subjob),
        None if retry is None else retry + 1,
        subjob["attempt_number"] or None,
        subjob["host"] if is_held else None,
        subjob["expires_in_seconds"],
        why,
    )


def _may_be_retried(subjob: Document, since: float) -> bool:
    closing = subjob.get("closing")
    if closing is None or not (closing["reason"] or "").endswith(RETRY_MAY_FOLLOW):
        return False
    return seconds_of(closing["at"]) > since


def _phase(subjob: Document) -> str | None:
    """Return the phase that runs, or would be entered next."""
    waiting = next((p for p in subjob.get("phases", ()) if p["run"]), None)
    if subjob["status"] in ("active", "recalled", "lapsed") or waiting is None:
        phase: str | None = subjob["phase"]
        return phase
    return str(waiting["name"])


def _standing(
    subjob: Document, down: Mapping[str, str | None], job: Mapping[str, Plain]
) -> tuple[Standing, str]:
    outcome, status = subjob["outcome"], subjob["status"]
    if outcome == "complete":
        return Standing.DONE, ""
    if outcome is not None:
        closing = subjob.get("closing")
        return Standing.FAILED, f"{outcome}, {closing_reason(closing)}" if closing else outcome
    hold = _hold(subjob, job)
    if hold is not None:
        return Standing.HELD, f"held by {who_acted(hold)}: {hold_text(hold)}"
    is_live = status in ("active", "recalled")
    kind = _holder_kind(subjob)
    transfer = _transfer(subjob)
    if transfer.get("state") == "needs-action":
        return Standing.HELD, f"needs a person: {transfer.get('action') or 'see its log'}"
    blocked = _blocked(subjob, down)
    if blocked is not None and (not is_live or kind == "job"):
        return Standing.WAITING, blocked
    if is_live and kind != "job":
        return Standing.WAITING, f"{_KIND_OF_SCRIPT.get(kind, kind)} is at work"
    if status == "recalled":
        return Standing.RUNNING, f"{subjob.get('recalled_by') or 'a newer attempt'} waits for it"
    if is_live:
        if transfer.get("state") or job.get("TransferringInput") or job.get("TransferringOutput"):
            return Standing.TRANSFERRING, str(transfer.get("text") or "")
        return Standing.RUNNING, ""
    return Standing.WAITING, _waiting(subjob, status, job)


def _waiting(subjob: Document, status: str, job: Mapping[str, Plain]) -> str:
    attempts: Sequence[Document] = subjob.get("attempts", ())
    last = next((a for a in reversed(attempts) if a["kind"] == "job"), None)
    submissions: Sequence[Document] = subjob.get("submissions", ())
    newest = submissions[-1]["global_job_id"] if submissions else None
    if status == "lapsed":
        return "its lease has run out; a later attempt may go on"
    if newest is not None and newest in subjob.get("removed_jobs", ()):
        return "its job was removed; submit the DAG again to go on"
    if status == "exited":
        return f"payload ended ({ending_text(subjob)}); POST is to settle it"
    if job.get("JobStatus") == IDLE:
        return "in the queue, idle" + (f"; {last['reason']}" if last and last["reason"] else "")
    if job.get("JobStatus") == RUNNING:
        return "its job runs, but has no lease yet"
    if last is not None and last["end"] == "abandoned":
        return f"attempt {last['attempt_number']}: {last['reason'] or 'gave the lease up'}"
    latest = attempts[-1] if attempts else None
    told = latest["reason"] if latest is not None and latest["kind"] == "pre" else None
    return "no attempt has begun" + (f"; {told}" if told else "")


def _hold(subjob: Document, job: Mapping[str, Plain]) -> dict[str, Any] | None:
    """Return the hold that a job is under: by the queue, which knows best, else as reported."""
    if not job:
        hold: dict[str, Any] | None = subjob.get("job_hold")
        return hold
    if job.get("JobStatus") != HELD:
        return None
    code, subcode = job.get("HoldReasonCode"), job.get("HoldReasonSubCode")
    number = code if isinstance(code, int) else None
    sub = subcode if isinstance(subcode, int) else None
    return {
        "by": held_by(number, sub),
        "reason": job.get("HoldReason"),
        "code": number,
        "subcode": sub,
    }


def _holder_kind(subjob: Document) -> str:
    attempts = subjob.get("attempts") or ({"kind": "job"},)
    kind: str = attempts[-1]["kind"]
    return kind


def _blocked(subjob: Document, down: Mapping[str, str | None]) -> str | None:
    """Say which flag keeps the next phase from being entered, as the server would; or None."""
    if not down:
        return None
    phases = {phase["name"]: phase for phase in subjob.get("phases", ())}
    is_live, fence = subjob["status"] in ("active", "recalled"), subjob["fence"]
    for spec in (subjob.get("plan") or {}).get("phases", ()):
        phase = phases[spec["name"]]
        is_next = phase["run"]
        if is_live:
            # What the holder itself completed it need not do again; the next one would.
            is_next = phase["completed_fence"] is None or (
                phase["restart"] != "once" and phase["completed_fence"] != fence
            )
        if is_next:
            if is_live and phase["entered_fence"] == fence:
                return None
            for name in spec["needs"]:
                if name in down:
                    reason = f": {down[name]}" if down[name] else ""
                    return f"{spec['name']} needs {name}, which is down{reason}"
            return None
    return None


def _transfer(subjob: Document) -> Mapping[str, Any]:
    """Return the record of a transfer, which a watcher saves as the details of its phase."""
    if subjob.get("details_phase") != "transfer":
        return {}
    try:
        record = json.loads(subjob["details"])
    except (ValueError, TypeError):
        return {}
    return record if isinstance(record, dict) else {}


def row_of(node: Node) -> tuple[str, ...]:
    """Return a node as a row of the table."""
    lease = "" if node.expires_in_seconds is None else duration_text(node.expires_in_seconds)
    name = f"{node.name} (sub-DAG)" if node.kind == "subdag" else node.name
    number = "" if node.attempt_number is None else str(node.attempt_number)
    tried = "" if node.tried is None else str(node.tried)
    # The domain is mostly everybody's, and 80 columns are few; --json has it.
    host = (node.host or "").partition(".")[0]
    return (name, node.standing.value, node.phase or "", tried, number, host, lease, node.why)


COLUMNS = ("NODE", "IS", "PHASE", "TRY", "ATTEMPT", "HOST", "LEASE", "WHY")
