"""The HOLD script: tell the server that a node's job is held, and run the user's own.

DAGMan ignores its exit status and may leave it out. Nobody's lease changes: a held job may run on
for as long as its machine lets it, and its wrapper gives the lease up itself.
"""

from __future__ import annotations

import json
import os
import sys
import time

from htlease.condor.hold_codes import WALL_TIME_CODES, held_by
from htlease.condor.queued_ad import HELD, IDLE, REMOVED
from htlease.errors import HTLeaseError
from htlease.rules.end_proof import ATTRIBUTES
from htlease.rules.reasons import WALL_TIME
from htlease.rules.start_number import ReadFrom, start_number
from htlease_dagman.scripts.dag_settings import Settings
from htlease_dagman.scripts.invocation import Call
from htlease_dagman.scripts.node_script import Script, Server
from htlease_dagman.scripts.queue_ad import number, read_ad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

FILE = "holds.jsonl"
_REASON = ("HoldReason", "HoldReasonCode", "HoldReasonSubCode")
_NAMES = (
    *("GlobalJobId", "JobStatus", "NumJobStarts", "NumShadowStarts"),
    *(*_REASON, *(f"Last{name}" for name in _REASON)),
    *ATTRIBUTES,
)


def hold(settings: Settings, call: Call) -> int:
    """Add a line to `holds.jsonl`, tell the server, run the user's script; raises OSError."""
    job = call.macros["JOBID"]
    ad = read_ad("condor_q", job, _NAMES) or read_ad("condor_history", job, _NAMES)
    held = held_in(ad)
    line = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "node": call.node,
        "try": call.try_id,
        "job": job,
        **held,
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(os.path.join(settings.state_directory, FILE), flags, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(line) + "\n")
    if held:
        _tell(settings, call, ad, reports(held, ad))
    words = settings.scripts(call.node).hold
    if not words:
        return 0
    from htlease_dagman.scripts import user_script  # loads what starts processes

    return user_script.run(call.expand(words), lambda: False, 3600.0)


def held_in(ad: Mapping[str, str | int]) -> dict[str, Any]:
    """Return why and by whom a job is held, or was held last; nothing where its ad says neither.

    DAGMan calls a second or more after the hold, and somebody may have released the job by then.
    Both sets of attributes, and the change from one to the other: measured on 23.9.6 and 25.14.1.
    """
    last = "" if ad.get("JobStatus") == HELD else "Last"
    code, subcode = (number(ad, f"{last}HoldReason{part}") for part in ("Code", "SubCode"))
    if "GlobalJobId" not in ad or (last and code is None):
        return {}
    return {
        "global_job_id": ad["GlobalJobId"],
        "by": held_by(code, subcode),
        "reason": ad.get(f"{last}HoldReason"),
        "code": code,
        "subcode": subcode,
    }


def reports(
    held: Mapping[str, Any], ad: Mapping[str, str | int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the commands with their bodies that tell of a hold, and of its end if it has one."""
    status = ad.get("JobStatus")
    if status != HELD and held["by"] == "htlease":
        return  # `htlease dag hold` and `release` have told of it themselves
    yield "observed", {"what": "held", **held}
    job = {"global_job_id": held["global_job_id"]}
    if held["code"] in WALL_TIME_CODES and status in (IDLE, REMOVED, HELD):
        # The job has heard a signal; that its time was over is known here alone. The counters of
        # one that runs again are those of its new start.
        yield "ended", {**job, **_starts(ad), "reason": f"{WALL_TIME}: {held['reason']}"}
    if status not in (HELD, REMOVED):
        yield "observed", {**job, "what": "released"}


def _starts(ad: Mapping[str, str | int]) -> dict[str, int | None]:
    """Return what names the start that the hold has ended."""
    starts = number(ad, "NumJobStarts")
    return {
        "job_starts": None if starts is None else start_number(starts, ReadFrom.AFTER_THE_END),
        "shadow_starts": number(ad, "NumShadowStarts"),
    }


def _is_over(script: Script, job: str, ad: Mapping[str, str | int]) -> bool:
    """Tell whether the start that a limit on run time held has given up its lease, or must have."""
    from htlease_dagman.scripts.start_over import finding

    if script.document()["status"] not in ("active", "recalled", "lapsed"):
        return True  # what is told only explains it
    return finding(job, ad, may_run_again=True).is_proof


def _tell(
    settings: Settings,
    call: Call,
    ad: Mapping[str, str | int],
    commands: Iterable[tuple[str, dict[str, Any]]],
) -> None:
    """Report the hold; a server that is away is not worth a failure, and DAGMan would not look."""
    subjob = call.node
    if settings.scripts(call.node).jobs > 1:
        subjob += f".{call.macros['JOBID'].partition('.')[2]}"
    try:
        script = Script(settings, call, None, Server(settings), subjob)
        for command, body in commands:
            if command != "ended" or _is_over(script, call.macros["JOBID"], ad):
                script.send(command, **body)
    except HTLeaseError as error:
        print(
            f"htlease hold {call.node}: the server was not told: {error}",
            file=sys.stderr,
        )
