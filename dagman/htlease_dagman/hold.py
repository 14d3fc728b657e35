"""The HOLD script: tell the server that a node's job is held, and run the user's own.

DAGMan ignores its exit status and may leave it out. Nobody's lease changes: a held job may run on
for as long as its machine lets it, and its wrapper gives the lease up itself.
"""

from __future__ import annotations

import json
import os
import sys
import time

from htlease.errors import HTLeaseError
from htlease.holds import WALL_TIME, WALL_TIME_CODES, held_by
from htlease.starts import ReadFrom, start_number
from htlease_dagman.call import Call
from htlease_dagman.queue_ad import number, read_ad
from htlease_dagman.script import Script, Server
from htlease_dagman.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "holds.jsonl"
_HELD = 5
_NAMES = (
    *("GlobalJobId", "JobStatus", "HoldReason", "HoldReasonCode", "HoldReasonSubCode"),
    *("NumJobStarts", "NumShadowStarts"),
)


def hold(settings: Settings, call: Call) -> int:
    """Add a line to `holds.jsonl`, tell the server, run the user's script; raises OSError."""
    ad = read_ad("condor_q", call.macros["JOBID"], _NAMES)
    held = _held(ad)
    line = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "node": call.node,
        "try": call.try_id,
        "job": call.macros["JOBID"],
        **held,
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(os.path.join(settings.state_directory, FILE), flags, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(line) + "\n")
    if held:
        _tell(settings, call, held, _starts(ad))
    words = settings.scripts(call.node).hold
    if not words:
        return 0
    from htlease_dagman import chain  # loads what starts processes

    return chain.run(call.expand(words), lambda: False, 3600.0)


def _held(ad: dict[str, str | int]) -> dict[str, Any]:
    """Return why and by whom a job is held; nothing when the queue does not say that it is."""
    if ad.get("JobStatus") != _HELD or "GlobalJobId" not in ad:
        return {}
    code, subcode = number(ad, "HoldReasonCode"), number(ad, "HoldReasonSubCode")
    return {
        "global_job_id": ad["GlobalJobId"],
        "by": held_by(code, subcode),
        "reason": ad.get("HoldReason"),
        "code": code,
        "subcode": subcode,
    }


def _starts(ad: dict[str, str | int]) -> dict[str, Any]:
    """Return what names the start that the hold has ended."""
    starts = number(ad, "NumJobStarts")
    return {
        "job_starts": None if starts is None else start_number(starts, ReadFrom.AFTER_THE_END),
        "shadow_starts": number(ad, "NumShadowStarts"),
    }


def _tell(settings: Settings, call: Call, held: dict[str, Any], starts: dict[str, Any]) -> None:
    """Report the hold; a server that is away is not worth a failure, and DAGMan would not look."""
    subjob = call.node
    if settings.scripts(call.node).jobs > 1:
        subjob += f".{call.macros['JOBID'].partition('.')[2]}"
    try:
        script = Script(settings, call, None, Server(settings), subjob)
        script.send("observed", what="held", **held)
        if held["code"] in WALL_TIME_CODES:
            # The job has heard a signal; that its time was over is known here alone.
            reason = f"{WALL_TIME}: {held['reason']}"
            script.send("ended", global_job_id=held["global_job_id"], **starts, reason=reason)
    except HTLeaseError as error:
        print(
            f"htlease hold {call.node}: the server was not told: {error}",
            file=sys.stderr,
        )
