"""The POST script of a FINAL node: what became of the DAG, when DAGMan itself does not notice.

A DAGMan of 23.9.6 that is killed while a PROVISIONER runs goes on with the FINAL node and ends with
0, although no other node ever ran; `$DAG_STATUS` is 1 then, an error of no node's. Source:
measured.
"""

from __future__ import annotations

from htlease_dagman.scripts.post import post as settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from htlease_dagman.scripts.node_script import Script

FAILED = 1
#: `$DAG_STATUS` of a DAG of which no node has failed and that nobody has ended.
_NO_FAILURE = ("0", "1")


def post(script: Script) -> int:
    """Settle the node, and fail it where DAGMan calls a DAG good of which nodes never ran."""
    status = settle(script)
    left = nodes_left(script.call.macros, script.settings.node_count)
    if status or not left:
        return status
    script.say(
        f"DAGMan ends this DAG well, and {left} of its {script.settings.node_count} nodes never ran"
        " (it was killed while a PROVISIONER ran?); submit the DAG again"
    )
    return FAILED


def nodes_left(macros: Mapping[str, str], node_count: int) -> int:
    """Return how many nodes are not done in a DAG that DAGMan calls good; pure.

    `node_count` is that of the DAG when it was instrumented: it may have lost some since.
    """
    counts = [macros.get(name, "") for name in ("DONE_COUNT", "NODE_COUNT")]
    if macros.get("DAG_STATUS") not in _NO_FAILURE or not all(count.isdigit() for count in counts):
        return 0
    done, known = map(int, counts)
    return max(0, min(node_count, known) - done)
