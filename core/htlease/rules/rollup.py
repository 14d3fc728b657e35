"""What a workflow as a whole is doing: a pure function of its subjobs, never a guarded state.

So a finished subjob of a running workflow can be submitted again, and the workflow simply says
what is true then.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What is over is not yet closed.
COMMITTING = "committing"
#: The first status present names the workflow's state: unfinished before finished, and among the
#: finished the worst first.
ROLLUP_ORDER: tuple[tuple[str, str], ...] = (
    ("active", "running"),
    ("recalled", "running"),
    ("lapsed", "interrupted"),
    ("abandoned", "interrupted"),
    ("exited", COMMITTING),
    ("waiting", "waiting"),
    ("failed", "failed"),
    ("cancelled", "cancelled"),
    ("complete", "complete"),
)
#: All is over, some of it complete and some cancelled: neither word says so.
PARTIAL = "partial"
#: The state of a workflow without subjobs.
EMPTY = "empty"


def rollup(counts: Mapping[str, int]) -> str:
    """Return the state of a workflow from how many of its subjobs have each status."""
    for status, state in ROLLUP_ORDER:
        if counts.get(status):
            return PARTIAL if status == "cancelled" and counts.get("complete") else state
    return EMPTY
