"""What the submit descriptions of a DAG's nodes say: how many jobs, and if with the wrapper."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from htlease.errors import InvalidField
from htlease_admin import schedd
from htlease_admin.dag.descriptions import Seen, look
from htlease_admin.queue_statement import check_no_slice, check_not_several, check_one_queue
from htlease_admin.submit_file import is_wrapper, sends_files
from htlease_dagman.dag import Dag, Node
from htlease_dagman.dag_file import BadDag
from htlease_dagman.include import NodeJobs
from htlease_dagman.settings import SERVICE_KINDS

_INPUTS = re.compile(
    r"^\s*(transfer_input_files|TransferInputFiles|(?:\+|MY\.)TransferInput)\s*=",
    re.IGNORECASE | re.MULTILINE,
)
_QUEUE = re.compile(r"^\s*queue\b.*", re.IGNORECASE | re.MULTILINE)


def read_jobs(dag: Dag, may_be_missing: bool, send_tokens: bool) -> dict[str, NodeJobs]:
    """Return what each node queues; raises BadDag for what cannot be read.

    `may_be_missing` takes a submit file that does not exist yet for one that queues one job;
    `send_tokens` sends a token to all jobs that have a sandbox, not only to those of the wrapper.
    """
    known: dict[object, NodeJobs] = {}
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
        except OSError as error:
            raise _unreadable(node, error.strerror or "cannot be read") from None
        # Nodes that share a file mostly differ in what does not matter for the count.
        counts_by_macro = any("$(" in line for line in _QUEUE.findall(text))
        variables = node.variables if counts_by_macro else {}
        which = (text, node.directory, *sorted(variables.items()))
        if which not in known:
            known[which] = _read(node, text, variables, send_tokens)
        jobs[node.name] = known[which]
    return jobs


def _text_of(node: Node, dag: Dag) -> str:
    inline = dag.descriptions.get(node.submit) if node.inline is None else node.inline
    if inline is None:
        # HTCondor reads bytes; any of them is a character here.
        return (node.directory / node.submit).read_bytes().decode("latin-1")
    # Only a file has to have the statement.
    return inline if _QUEUE.search(inline) else f"{inline}queue\n"


def _unreadable(node: Node, reason: str) -> BadDag:
    file = "" if node.inline is not None else f" {node.directory / node.submit}"
    return BadDag(node.place, f"submit description{file} of node {node.name}: {reason}")


def _read(node: Node, text: str, variables: dict[str, str], send_tokens: bool) -> NodeJobs:
    own = {re.sub(r"^\+", "MY.", name): value for name, value in variables.items()}
    macros = {"JOB": node.name, "RETRY": "0", **own}
    seen = look(text.encode("latin-1"), node.directory, macros)
    try:
        # DAGMan would submit the first, and say nothing. Source: measured on 23.9.6 and 25.14.1.
        check_not_several(text, node.submit)
        if seen is None or not seen.dagman_takes_slices:
            check_no_slice(text, node.submit)
        facts = _of_bindings(node, text, macros) if seen is None else _of_dry_run(seen)
    except InvalidField as error:
        raise _unreadable(node, error.problem) from None
    if not ((send_tokens or facts.is_wrapper) and facts.sends_files):
        return NodeJobs(facts.job_count)
    return NodeJobs(facts.job_count, _inputs_macro(node, text) if facts.has_inputs else "")


class _Facts(NamedTuple):
    job_count: int
    is_wrapper: bool
    sends_files: bool
    has_inputs: bool


def _of_dry_run(seen: Seen) -> _Facts:
    sends = seen.ad.get("JobUniverse") == "5" and seen.text("ShouldTransferFiles") != "NO"
    is_ours = is_wrapper(seen.text("Cmd"))
    return _Facts(seen.job_count, is_ours, sends, bool(seen.text("TransferInput")))


def _of_bindings(node: Node, text: str, macros: Mapping[str, str]) -> _Facts:
    """Read it where condor_submit is not there, or refuses what may be right later."""
    check_one_queue(text, node.submit)
    with _working_in(node.directory):
        description = schedd.read_description(text, macros)
    commands = description.commands
    is_ours = is_wrapper(commands.get("executable", commands.get("Cmd", "")))
    inputs = commands.get("transfer_input_files", commands.get("TransferInputFiles", ""))
    return _Facts(description.job_count, is_ours, sends_files(commands), bool(inputs.strip()))


def _inputs_macro(node: Node, text: str) -> str:
    """Return the name by which the description has its input files, for others to be added."""
    names = [name.lower() for name in _INPUTS.findall(text)]
    if any(name.startswith(("+", "my.")) for name in names):
        raise _unreadable(
            node, "+TransferInput goes before what is added; write it as transfer_input_files"
        )
    is_alias = "transferinputfiles" in names and "transfer_input_files" not in names
    return "TransferInputFiles" if is_alias else "transfer_input_files"


@contextlib.contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    """Be in the node's directory, where `queue from FILE` and `matching` look."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
