"""Which start a watcher is: what the ad in `$_CONDOR_JOB_AD` says of a job, or of DAGMan itself."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, ReadFrom, start_number
from htlease_dagman.staging.transfer_record import PLAN

_LINE = re.compile(r'(\w+)\s*=\s*(?:"([^"\\]*)"|(\d+))\s*')


def acquire_command(
    environ: Mapping[str, str], nonce: str, ttl_seconds: float, kind: str
) -> m.Acquire:
    """Return the request for the lease of a watcher; `kind` is one of `messages.KINDS`.

    A job's ad counts its own starts; the ad that a script finds is DAGMan's, and counts DAGMan's
    starts. Both are snapshots from before the start was counted. With no ad, as when a person runs
    the watcher, only the end of an earlier lease lets it in. A job opens nothing that has
    failed: `watch FILE NODE --begin` does that, once for each submission of the DAG.
    """
    attributes = _attributes(environ.get("_CONDOR_JOB_AD"))
    starts, name = attributes.get("NumJobStarts"), attributes.get("GlobalJobId")
    if name and kind == "pre":
        name += "/0"  # the script's node is tried once for each submission of the DAG
    evidence = Evidence(
        # A DAGMan that starts for the first time has no count yet.
        job_starts=start_number(int(starts or 0), ReadFrom.JOB_AD) if attributes else None,
        shadow_starts=_number(attributes.get("NumShadowStarts")),
        shadow_birthdate=_number(attributes.get("ShadowBday")),
    )
    return m.Acquire(
        nonce,
        kind,
        evidence,
        global_job_id=name,
        host=socket.gethostname(),
        ttl_seconds=ttl_seconds,
        plan=PLAN,
        # DAGMan retries nodes, and nobody has asked for that. A script acts in the name of DAGMan's
        # own job, which somebody has submitted.
        reopens=False if kind == "job" else None,
    )


def _attributes(path: str | None) -> dict[str, str]:
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2] or match[3] for match in found if match}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
