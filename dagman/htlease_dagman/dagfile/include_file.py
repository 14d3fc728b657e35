"""What `htlease dag instrument` puts beside a DAG: the included file and the settings; pure.

DAGMan lets the last of two SCRIPT commands of a node win, so the include stands at the DAG's end.
ALL_NODES leaves out FINAL nodes and, until its file has been read, the nodes of a splice; the end
of any included file works the splices in. Source: measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htlease_dagman.dagfile.include_line import ENDING
from htlease_dagman.dagfile.parser import ALL_NODES, Dag, Node, Script
from htlease_dagman.scripts.dag_settings import CLEAN_UP, SERVICE_KINDS, VERSION
from htlease_dagman.scripts.invocation import DEFER, SKIP, words_for

KINDS = ("PRE", "POST", "HOLD")
#: What the scripts of a FINAL node want to know besides.
_FINAL_MACROS = {"PRE": ("DAG_STATUS",), "POST": ("DAG_STATUS", "DONE_COUNT", "NODE_COUNT")}
#: What DAGMan counts as done before it starts the FINAL node. Source: measured on 23.9.6.
_DONE_FIRST = ("job", "subdag", "provisioner")
_PROCESS_MACRO = "htlease_proc"


@dataclass(frozen=True)
class Names:
    """The files beside a DAG."""

    dag: Path

    def _beside(self, ending: str) -> Path:
        return self.dag.with_name(f"{self.dag.name}.htlease.{ending}")

    @property
    def include(self) -> Path:
        """What the DAG includes."""
        return self.dag.with_name(self.dag.name + ENDING)

    @property
    def splices(self) -> Path:
        """An include without commands, after which DAGMan knows the nodes of splices."""
        return self._beside("splices")

    @property
    def settings(self) -> Path:
        """What the scripts read; it names the workflow."""
        return self._beside("json")

    @property
    def token(self) -> Path:
        """The workflow's token."""
        return self._beside("token")

    @property
    def log(self) -> Path:
        """What the scripts said."""
        return self._beside("log")

    @property
    def notes(self) -> Path:
        """Where the scripts keep notes and tokens."""
        return self._beside("d")

    @property
    def job_token(self) -> Path:
        """The token of a job, in macros of the job."""
        return self.notes / "tokens" / f"$(JOB)$({_PROCESS_MACRO})" / "htlease.token"


@dataclass(frozen=True)
class Variables:
    """VARS of a node, before its submit description and after it."""

    prepended: Mapping[str, str] = field(default_factory=dict)
    appended: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeJobs:
    """What the submit description of a node says, and what is added to it."""

    #: How many jobs it queues.
    count: int = 1
    variables: Variables = Variables()


@dataclass(frozen=True)
class Instruments:
    """What is put into a DAG."""

    names: Names
    workflow: str
    server: str
    #: Path of `htlease-dag`.
    program: Path
    defer_seconds: int
    #: By name of the node.
    jobs: dict[str, NodeJobs]
    #: Macros for all nodes.
    shared: Mapping[str, str] = field(default_factory=dict)


def include_text(dag: Dag, instruments: Instruments) -> str:
    """Return the text of the included file."""
    return "\n".join(_lines(dag, instruments)) + "\n"


def include_text_of(node: Node, instruments: Instruments) -> str:
    """Return the text of an included file for one node alone, which has no scripts of its own."""
    is_final = node.kind in ("final", CLEAN_UP)
    lines = [*_lines_for(node.name, instruments, is_final), *_variables(node, instruments)]
    return "\n".join(lines) + "\n"


def _lines(dag: Dag, instruments: Instruments) -> Iterator[str]:
    names = instruments.names
    yield f"# Made by `htlease dag instrument` for {names.dag.name}; it is made anew each time."
    if dag.has_splices:
        yield f"INCLUDE {names.splices}"
    yield from _lines_for(ALL_NODES, instruments)
    for node in dag.nodes.values():
        is_final = node.kind == "final"
        if is_final:
            yield from _lines_for(node.name, instruments, is_final=True)
        for script in node.scripts.values():
            if node.kind not in SERVICE_KINDS:
                yield _script_line(node.name, script.kind, instruments, script, is_final)
            elif node.kind == "provisioner":
                # On 23.9 ALL_NODES means it too, so its own script has to be put back.
                yield _own_script_line(node.name, script)
        yield from _variables(node, instruments)


def _lines_for(target: str, instruments: Instruments, is_final: bool = False) -> Iterator[str]:
    for kind in KINDS:
        yield _script_line(target, kind, instruments, is_final=is_final)
    yield f"PRE_SKIP {target} {SKIP}"
    key = f"{instruments.workflow}/$(JOB)$({_PROCESS_MACRO})"
    told = {"My.HTLeaseKey": f'"{key}"', "My.HTLeaseURL": f'"{instruments.server}"'}
    yield from _vars(target, "APPEND", told)
    yield from _vars(target, "APPEND", instruments.shared)


def _script_line(
    target: str,
    kind: str,
    instruments: Instruments,
    own: Script | None = None,
    is_final: bool = False,
) -> str:
    seconds = own.defer[1] if own and own.defer else instruments.defer_seconds
    words = ["SCRIPT"] if kind == "HOLD" else ["SCRIPT", "DEFER", str(DEFER), str(seconds)]
    if own is None:
        words += ["DEBUG", str(instruments.names.log), "STDERR"]
    elif own.debug:
        # DAGMan reads 10 KiB of a script's output and then shuts the pipe, which would end a
        # user's script that says more; so there is a DEBUG only where the user wanted one.
        words += ["DEBUG", *own.debug]
    macros = [word[1:].upper() for word in own.command.split() if _is_macro(word)] if own else []
    if is_final:
        macros += _FINAL_MACROS.get(kind, ())
    arguments = words_for(kind.lower(), str(instruments.names.settings), macros)
    return " ".join([*words, kind, target, str(instruments.program), *arguments])


def _own_script_line(target: str, own: Script) -> str:
    words = ["SCRIPT"]
    if own.defer:
        words += ["DEFER", *map(str, own.defer)]
    if own.debug:
        words += ["DEBUG", *own.debug]
    return " ".join([*words, own.kind, target, own.command])


def _is_macro(word: str) -> bool:
    return word.startswith("$") and word[1:].replace("_", "").isalpha()


def _variables(node: Node, instruments: Instruments) -> Iterator[str]:
    jobs = instruments.jobs.get(node.name, NodeJobs())
    process = {_PROCESS_MACRO: ".$(ProcId)"} if jobs.count > 1 else {}
    yield from _vars(node.name, "PREPEND", jobs.variables.prepended)
    yield from _vars(node.name, "APPEND", process | dict(jobs.variables.appended))


def _vars(target: str, where: str, variables: Mapping[str, str]) -> Iterator[str]:
    pairs = []
    for name, value in variables.items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        pairs.append(f'{name}="{quoted}"')
    if pairs:
        yield f"VARS {target} {where} {' '.join(pairs)}"


def settings_document(dag: Dag, instruments: Instruments) -> dict[str, Any]:
    """Return what the settings file holds; nodes of which nothing is to be said are left out."""
    nodes = {}
    for node in dag.nodes.values():
        said = _node_document(node, instruments.jobs.get(node.name, NodeJobs()).count)
        if said:
            nodes[node.name] = said
    return {
        "version": VERSION,
        "workflow": instruments.workflow,
        "server": instruments.server,
        "dag": str(instruments.names.dag),
        "token_file": instruments.names.token.name,
        "node_count": sum(node.kind in _DONE_FIRST for node in dag.nodes.values()),
        "nodes": nodes,
    }


def _node_document(node: Node, job_count: int) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if node.kind not in SERVICE_KINDS:
        for kind, script in node.scripts.items():
            said[kind.lower()] = script.command.split()
            if script.defer and kind != "HOLD":
                said[f"{kind.lower()}_defer"] = script.defer[0]
        if node.pre_skip is not None:
            said["pre_skip"] = node.pre_skip
    if node.kind != "job":
        said["kind"] = node.kind
    if job_count != 1:
        said["jobs"] = job_count
    if node.is_noop:
        said["is_noop"] = True
    return said


def structure_document(dag: Dag, dag_sha256: str, sub_dags: Mapping[str, str]) -> dict[str, Any]:
    """Return what the server keeps of a DAG: each of the children waits for all of its parents.

    `sub_dags` has the workflows of sub-DAGs by node, where they have any.
    """
    return {
        "sub_dags": dict(sub_dags),
        "dag_sha256": dag_sha256,
        "nodes": {node.name: node.kind for node in dag.nodes.values()},
        "dependencies": [
            {
                "parents": [node.name for node in dependency.parents],
                "children": [node.name for node in dependency.children],
            }
            for dependency in dag.dependencies
        ],
    }
