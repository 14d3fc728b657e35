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
from htlease.holds import held_by
from htlease_dagman.call import Call
from htlease_dagman.queue_ad import number, read_ad
from htlease_dagman.script import Script, Server
from htlease_dagman.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "holds.jsonl"
_HELD = 5
_NAMES = ("GlobalJobId", "JobStatus", "HoldReason", "HoldReasonCode", "HoldReasonSubCode")


def hold(settings: Settings, call: Call) -> int:
    """Add a line to `holds.jsonl`, tell the server, run the user's script; raises OSError."""
    held = _held(call.macros["JOBID"])
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
        _tell(settings, call, held)
    words = settings.scripts(call.node).hold
    if not words:
        return 0
    from htlease_dagman import chain  # loads what starts processes

    return chain.run(call.expand(words), lambda: False, 3600.0)


def _held(job: str) -> dict[str, Any]:
    """Return why and by whom a job is held; nothing when the queue does not say that it is."""
    ad = read_ad("condor_q", job, _NAMES)
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


def _tell(settings: Settings, call: Call, held: dict[str, Any]) -> None:
    """Report the hold; a server that is away is not worth a failure, and DAGMan would not look."""
    subjob = call.node
    if settings.scripts(call.node).jobs > 1:
        subjob += f".{call.macros['JOBID'].partition('.')[2]}"
    try:
        script = Script(settings, call, None, Server(settings), subjob)
        script.send("observed", what="held", **held)
    except HTLeaseError as error:
        print(
            f"htlease hold {call.node}: the server was not told: {error}",
            file=sys.stderr,
        )
