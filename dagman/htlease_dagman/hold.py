"""The HOLD script: note that a node's job is held, and run the user's own.

DAGMan ignores its exit status and may leave it out. The server is told nothing: a held job may
still be running for as long as its machine lets it, and its wrapper gives the lease up itself.
"""

from __future__ import annotations

import json
import os
import time

from htlease_dagman import chain
from htlease_dagman.call import Call
from htlease_dagman.settings import Settings

FILE = "holds.jsonl"


def hold(settings: Settings, call: Call) -> int:
    """Add a line to `holds.jsonl` among the DAG's notes; raises OSError."""
    line = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "node": call.node,
        "try": call.try_id,
        "job": call.macros["JOBID"],
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(os.path.join(settings.state_directory, FILE), flags, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(line) + "\n")
    words = settings.scripts(call.node).hold
    return chain.run(call.expand(words), lambda: False, 3600.0) if words else 0
