"""What DAGMan's scripts need for the compute node of a staging workflow.

The other nodes have none: a watcher keeps its own lease over any number of jobs, and a POST script
would settle each of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from htlease_admin.dag.submit_files import read_jobs
from htlease_admin.staging.dag_text import COMPUTE, Layout, nodes_of
from htlease_dagman.dag import Dag, Node
from htlease_dagman.dag_file import Place
from htlease_dagman.include import Instruments, include_text_of, settings_document

_DEFER_SECONDS = 60


def compute_files(layout: Layout, server: str, token_file: Path, dag_text: str) -> dict[Path, str]:
    """Return the included file and the settings of the scripts; raises BadConfig."""
    names = layout.names
    node = _compute_node(layout, dag_text)
    dag = Dag(nodes={COMPUTE: node})
    jobs = read_jobs(dag, may_be_missing=False, send_tokens=False)
    instruments = Instruments(names, layout.workflow, server, layout.program, _DEFER_SECONDS, jobs)
    document = {**settings_document(dag, instruments), "token_file": token_file.name}
    return {
        names.include: f"{layout.mark}\n{include_text_of(node, instruments)}",
        names.settings: json.dumps(document, indent=1) + "\n",
    }


def _compute_node(layout: Layout, dag_text: str) -> Node:
    line = next(
        number
        for number, text in enumerate(dag_text.splitlines(), 1)
        if text.startswith(f"JOB {COMPUTE} ")
    )
    submit = layout.file.compute
    place = Place(layout.dag, line)
    return Node(COMPUTE, "job", place, submit.name, submit.parent.absolute())


def structure(layout: Layout, dag_text: str) -> dict[str, Any]:
    """Return what the server keeps of the DAG; the clean-up has no state to keep."""
    nodes = nodes_of(layout.file)
    return {
        "dag_sha256": hashlib.sha256(dag_text.encode()).hexdigest(),
        "nodes": dict.fromkeys(nodes, "job"),
        "dependencies": [
            {"parents": [first], "children": [second]}
            for first, second in itertools.pairwise(nodes)
        ],
    }
