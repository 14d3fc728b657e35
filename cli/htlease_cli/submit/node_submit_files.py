"""What the submit descriptions of a DAG's nodes say: how many jobs, and if with the wrapper."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from htlease.condor import schedd
from htlease.condor.queue_statement import check_no_slice, check_not_several, check_one_queue
from htlease.condor.submit_description import is_wrapper, sends_files
from htlease.errors import InvalidField
from htlease_cli.submit.node_descriptions import RUNS_COMMANDS, Seen, look, refusal_of
from htlease_cli.submit.node_wrapping import Wrapping, left_alone, sending, variables_of
from htlease_dagman.dagfile.include_file import NodeJobs, Variables
from htlease_dagman.dagfile.lexer import BadDag
from htlease_dagman.dagfile.parser import Dag, Node
from htlease_dagman.scripts.dag_settings import SERVICE_KINDS

_QUEUE = re.compile(r"^\s*queue\b.*", re.IGNORECASE | re.MULTILINE)
#: Lines by which nodes with the same description may yet differ in what is asked here.
_TELLING = re.compile(r"^\s*(?:queue\b|universe\b|JobUniverse\b|executable\b).*", _QUEUE.flags)


@dataclass(frozen=True)
class Read:
    """What was found."""

    #: By name of the node.
    jobs: dict[str, NodeJobs]
    #: A sentence for each node that the wrapper cannot run.
    left_alone: list[str]


def read_jobs(
    dag: Dag, may_be_missing: bool, send_tokens: bool, token: Path, wrapped: Wrapping | None
) -> Read:
    """Return what each node queues; raises BadDag for what cannot be read.

    `may_be_missing` takes a submit file that does not exist yet for one that queues one job.
    `token` is sent to jobs that start with the wrapper by themselves; `send_tokens` sends it to all
    that have a sandbox. `wrapped` puts the wrapper in front of what other jobs run.
    """
    known: dict[object, _Facts] = {}
    read = Read({}, [])
    for node in dag.nodes.values():
        if node.is_noop or node.kind == "subdag" or node.kind in SERVICE_KINDS:
            continue
        text = None
        try:
            text = _text_of(node, dag)
        except FileNotFoundError as error:
            if not may_be_missing:
                raise _unreadable(
                    node, f"{error.strerror}; give --missing-ok if something makes it later"
                ) from None
        except OSError as error:
            raise _unreadable(node, error.strerror or "cannot be read") from None
        if text is None:
            facts = _Facts(1, False, True, None)
        else:
            # Nodes that share a file mostly differ in what does not matter here.
            has_macros = any("$(" in line for line in _TELLING.findall(text))
            variables = node.variables if has_macros else {}
            which = (text, node.directory, *sorted(variables.items()))
            if which not in known:
                known[which] = _read(node, text, variables, wrapped)
            facts = known[which]
        forced = left_alone(text or "", node)
        why = facts.refusal or forced
        lines: Wrapping | None = None
        if wrapped and not (facts.is_wrapper or why):
            lines = wrapped
        elif facts.sends_files and (send_tokens or facts.is_wrapper):
            if forced:
                raise _unreadable(
                    node,
                    "+TransferInput goes before what is added; write it as transfer_input_files",
                )
            lines = sending(token)
        added = Variables()
        if lines is not None:
            inline = None if _inline(node, dag) is None else schedd.commands_of(text or "")
            added = variables_of(node, lines, inline)
        read.jobs[node.name] = NodeJobs(facts.job_count, added)
        if wrapped and why and not facts.is_wrapper:
            read.left_alone.append(
                f"node {node.name} runs without the wrapper: {why}; or use the hooks"
            )
    return read


def _text_of(node: Node, dag: Dag) -> str:
    inline = _inline(node, dag)
    if inline is None:
        # HTCondor reads bytes; any of them is a character here.
        return (node.directory / node.submit).read_bytes().decode("latin-1")
    # Only a file has to have the statement.
    return inline if _QUEUE.search(inline) else f"{inline}queue\n"


def _inline(node: Node, dag: Dag) -> str | None:
    return dag.descriptions.get(node.submit) if node.inline is None else node.inline


def _unreadable(node: Node, reason: str) -> BadDag:
    file = "" if node.inline is not None else f" {node.directory / node.submit}"
    return BadDag(node.place, f"submit description{file} of node {node.name}: {reason}")


class _Facts(NamedTuple):
    job_count: int
    is_wrapper: bool
    sends_files: bool
    #: Why the wrapper cannot run it.
    refusal: str | None


def _read(node: Node, text: str, variables: dict[str, str], wrapped: Wrapping | None) -> _Facts:
    own = {re.sub(r"^\+", "MY.", name): value for name, value in variables.items()}
    macros = {"JOB": node.name, "RETRY": "0", **own}
    if RUNS_COMMANDS.search(text.encode("latin-1")):
        raise _unreadable(
            node,
            "it runs a command, and how many jobs it queues is known only then; write what the "
            "command prints into a file, and let it read that: `queue ... from FILE`",
        )
    seen = look(text.encode("latin-1"), node.directory, macros)
    try:
        # DAGMan would submit the first, and say nothing. Source: measured on 23.9.6 and 25.14.1.
        check_not_several(text, node.submit)
        if seen is None or not seen.dagman_takes_slices:
            check_no_slice(text, node.submit)
        facts = _of_bindings(node, text, macros) if seen is None else _of_dry_run(seen)
    except InvalidField as error:
        raise _unreadable(node, error.problem) from None
    if wrapped is None or seen is None or facts.is_wrapper:
        return facts
    ours = variables_of(node, wrapped, None)
    before = {**macros, **ours.prepended}
    after = {**wrapped.shared, **ours.appended}
    refusal = refusal_of(text.encode("latin-1"), node.directory, before, after)
    return facts._replace(refusal=refusal)


def _of_dry_run(seen: Seen) -> _Facts:
    sends = seen.ad.get("JobUniverse") == "5" and seen.text("ShouldTransferFiles") != "NO"
    return _Facts(seen.job_count, is_wrapper(seen.text("Cmd")), sends, None)


def _of_bindings(node: Node, text: str, macros: Mapping[str, str]) -> _Facts:
    """Read it where condor_submit is not there, or refuses what may be right later."""
    check_one_queue(text, node.submit)
    with _working_in(node.directory):
        description = schedd.read_description(text, macros)
    commands = description.commands
    is_ours = is_wrapper(commands.get("executable", commands.get("Cmd", "")))
    return _Facts(description.job_count, is_ours, sends_files(commands), None)


@contextlib.contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    """Be in the node's directory, where `queue from FILE` and `matching` look."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
