"""What the submit descriptions of a DAG's nodes say: how many jobs, and if with the wrapper."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from htlease.errors import InvalidField
from htlease_admin import schedd
from htlease_admin.queue_statement import check_one_queue
from htlease_admin.submit_file import Description, is_wrapper, sends_files
from htlease_dagman.dag import Dag, Node
from htlease_dagman.dag_file import BadDag
from htlease_dagman.include import NodeJobs
from htlease_dagman.settings import SERVICE_KINDS

_QUEUE = re.compile(r"^\s*queue\b.*", re.IGNORECASE | re.MULTILINE)


def read_jobs(dag: Dag, may_be_missing: bool, send_tokens: bool) -> dict[str, NodeJobs]:
    """Return what each node queues; raises BadDag for what cannot be read.

    `may_be_missing` takes a submit file that does not exist yet for one that queues one job;
    `send_tokens` sends a token to all jobs that have a sandbox, not only to those of the wrapper.
    """
    known: dict[object, Description] = {}
    jobs = {}
    for node in dag.nodes.values():
        if node.is_noop or node.kind == "subdag" or node.kind in SERVICE_KINDS:
            continue
        try:
            text = _text_of(node, dag)
        except FileNotFoundError as error:
            if may_be_missing:
                continue
            raise _unreadable(
                node, f"{error.strerror}; give --missing-ok if something makes it later"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(node, getattr(error, "strerror", None) or "is not text") from None
        # Nodes that share a file mostly differ in what does not matter for the count.
        counts_by_macro = any("$(" in line for line in _QUEUE.findall(text))
        variables = node.variables if counts_by_macro else {}
        which = (text, node.directory, *sorted(variables.items()))
        if which not in known:
            known[which] = _read(node, text, variables)
        jobs[node.name] = _node_jobs(known[which], send_tokens)
    return jobs


def _text_of(node: Node, dag: Dag) -> str:
    inline = dag.descriptions.get(node.submit) if node.inline is None else node.inline
    if inline is None:
        return (node.directory / node.submit).read_text()
    # Only a file has to have the statement.
    return inline if _QUEUE.search(inline) else f"{inline}queue\n"


def _unreadable(node: Node, reason: str) -> BadDag:
    file = "" if node.inline is not None else f" {node.directory / node.submit}"
    return BadDag(node.place, f"submit description{file} of node {node.name}: {reason}")


def _read(node: Node, text: str, variables: dict[str, str]) -> Description:
    try:
        check_one_queue(text, node.submit)
        with _working_in(node.directory):
            own = {re.sub(r"^\+", "MY.", name): value for name, value in variables.items()}
            return schedd.read_description(text, {"JOB": node.name, "RETRY": "0", **own})
    except InvalidField as error:
        raise _unreadable(node, error.problem) from None


@contextlib.contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    """Be in the node's directory, where `queue from FILE` and `matching` look."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def _node_jobs(description: Description, send_tokens: bool) -> NodeJobs:
    commands = description.commands
    has_inputs = None
    if (send_tokens or is_wrapper(commands.get("executable", ""))) and sends_files(commands):
        has_inputs = bool(commands.get("transfer_input_files", "").strip())
    return NodeJobs(description.job_count, has_inputs)
