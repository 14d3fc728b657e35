"""What DAGMan's scripts need for the compute node of a staging workflow, and for its clean-up.

The other nodes keep their own state: a watcher has one lease over any number of jobs, and a POST
script would settle each of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from htlease_cli.staging.clean_up_job import Lease
from htlease_cli.staging.dag_text import CLEAN_UP, COMPUTE, Layout, has_clean_up, nodes_of
from htlease_cli.submit.node_submit_files import read_jobs
from htlease_dagman.dagfile.include_file import Instruments, include_text_of, settings_document
from htlease_dagman.dagfile.lexer import Place
from htlease_dagman.dagfile.parser import Dag, Node
from htlease_dagman.scripts import dag_settings

_DEFER_SECONDS = 60


def script_files(
    layout: Layout, server: str, token_file: Path, dag_text: str, lease: Lease | None
) -> dict[Path, str]:
    """Return the included file and the settings of the scripts; raises BadConfig.

    `lease` is what stands in front of the clean-up's program, if anything does.
    """
    names = layout.names
    nodes = [_node(layout, dag_text, COMPUTE, "job", layout.file.compute)]
    if has_clean_up(layout.file):
        assert layout.file.clean_up is not None
        nodes.append(_node(layout, dag_text, CLEAN_UP, dag_settings.CLEAN_UP, layout.file.clean_up))
    dag = Dag(nodes={node.name: node for node in nodes})
    jobs = read_jobs(dag, False, False, names.job_token, None).jobs
    instruments = Instruments(names, layout.workflow, server, layout.program, _DEFER_SECONDS, jobs)
    document = {
        **settings_document(dag, instruments),
        "token_file": token_file.name,
        "needs_submission": True,
    }
    texts = [include_text_of(node, instruments) for node in nodes]
    if lease is not None:
        texts.append(f"{lease.variables()}\n")
    return {
        names.include: f"{layout.mark}\n{''.join(texts)}",
        names.settings: json.dumps(document, indent=1) + "\n",
    }


def _node(layout: Layout, dag_text: str, name: str, kind: str, submit: Path) -> Node:
    line = next(
        number
        for number, text in enumerate(dag_text.splitlines(), 1)
        if text.startswith((f"JOB {name} ", f"FINAL {name} "))
    )
    place = Place(layout.dag, line)
    return Node(name, kind, place, submit.name, submit.parent.absolute())


def structure(layout: Layout, dag_text: str) -> dict[str, Any]:
    """Return what the server keeps of the DAG; a clean-up is none of what is to be done."""
    nodes = nodes_of(layout.file)
    return {
        "dag_sha256": hashlib.sha256(dag_text.encode()).hexdigest(),
        "nodes": dict.fromkeys(nodes, "job"),
        "dependencies": [
            {"parents": [first], "children": [second]}
            for first, second in itertools.pairwise(nodes)
        ],
    }
