"""What is looked up for `htlease dag status`: the server, and the schedd if it is this machine's.

The server alone is enough. The schedd knows better why a job waits, and what became of DAGMan.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from htlease.client.client import LeaseServer
from htlease.condor.bindings_process import locate, queue_birthdate, read_history, read_jobs
from htlease.condor.queued_ad import HELD, IDLE, REMOVED, job_number
from htlease.condor.schedd import Plain, ScheddUnavailable
from htlease.errors import BadConfig, Refused
from htlease.rules.attempt import SubjobKey
from htlease.rules.end_proof import of_queue
from htlease.rules.flags import GROUP_SEPARATOR
from htlease_cli.dag.nodes import JOB_ATTRIBUTES, Node, node_of, not_begun
from htlease_cli.dag.progress import Standing, counted, counts_text, state_of
from htlease_dagman.scripts.dag_settings import SERVICE_KINDS

#: Nodes that are asked for one by one; of more only what the list says is shown.
DOCUMENTS_MAX = 500
_DAGMAN_ATTRIBUTES = (*JOB_ATTRIBUTES, "ExitCode", "RemoveReason")
#: Of a DAG that waits for nobody, since its DAGMan is gone.
STOPPED = "stopped"
#: So long a failed try counts as one that DAGMan follows with another, where only the server is
#: asked: it does so at once, unless the try's exit code is one of UNLESS-EXIT.
_RETRY_SECONDS = 300.0
#: The subjobs changed last know the newest DAGMan.
_RECENT = 20


@dataclass(frozen=True)
class Dagman:
    """The job that runs a DAG, as this machine's schedd knows it."""

    job: str
    is_in_queue: bool
    text: str
    #: It does something: it is neither held nor gone.
    runs: bool = False


@dataclass(frozen=True)
class Overview:
    """How a DAG, or a workflow without one, stands."""

    workflow: str
    name: str
    nodes: tuple[Node, ...]
    #: The node that it is in the DAG above it; None for the DAG that was asked for.
    node: str | None = None
    dagman: Dagman | None = None
    sub_dags: tuple[Overview, ...] = ()

    @property
    def counts(self) -> Counter[Standing]:
        """How many nodes stand where; the jobs of one node are not counted beside it."""
        return counted(node.standing for node in self.nodes if node.kind != "queued")

    @property
    def state(self) -> str:
        """What it is doing as a whole."""
        state = state_of(self.counts)
        is_gone = self.dagman is not None and not self.dagman.is_in_queue
        return STOPPED if is_gone and state in ("waiting", "not begun") else state

    def all(self) -> Iterator[Overview]:
        """Yield this and all below it."""
        yield self
        for sub_dag in self.sub_dags:
            yield from sub_dag.all()

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "workflow": self.workflow,
            "name": self.name,
            "state": self.state,
            "counts": {s.value: number for s, number in self.counts.items()},
            "dagman": None if self.dagman is None else asdict(self.dagman),
            "nodes": [{**asdict(node), "standing": node.standing.value} for node in self.nodes],
            "sub_dags": [{"node": sub_dag.node, **sub_dag.document()} for sub_dag in self.sub_dags],
        }

    def told(self) -> str:
        """Return the counts as text."""
        return counts_text(self.counts)


@dataclass
class Looking:
    """One look at the server and, where there is one, at the schedd."""

    server: LeaseServer
    schedd_name: str | None = None
    #: Why nothing is known from the schedd; None while it answers.
    schedd_gap: str | None = None
    _seen: set[str] = field(default_factory=set)

    def look(self, workflow: str, node: str | None = None, is_begun: bool = True) -> Overview:
        """Return how a workflow stands with its sub-DAGs; raises Refused or ServerUnavailable.

        A sub-DAG has begun when the node that it is has: before that, none of its own is ready.
        """
        self._seen.add(workflow)
        document = self.server.workflow(workflow)
        structure: Mapping[str, Any] = document["structure"] or {}
        subjobs = {summary["subjob"]: summary for summary in document["subjobs"]}
        unfinished = [name for name, s in subjobs.items() if s["outcome"] != "complete"]
        for name in unfinished[:DOCUMENTS_MAX]:
            subjobs[name] = self.server.subjob(SubjobKey(workflow, name))
        dagman_job = _dagman_job(subjobs)
        dagman, jobs = self._queue(dagman_job)
        down = self._down(workflow) if unfinished else {}
        kinds = {
            name: kind
            for name, kind in structure.get("nodes", {}).items()
            if kind not in SERVICE_KINDS
        }
        gone = None
        if dagman is not None and not dagman.is_in_queue:
            gone = f"DAGMan {dagman.text}; submit the DAG again"
        since = time.time() - _RETRY_SECONDS
        nodes = tuple(_nodes(kinds, structure, subjobs, down, jobs, is_begun, gone, since))
        return Overview(
            workflow,
            document["labels"].get("dag", workflow),
            nodes,
            node,
            dagman,
            tuple(self._sub_dags(structure, subjobs)),
        )

    def _sub_dags(
        self, structure: Mapping[str, Any], subjobs: Mapping[str, Any]
    ) -> Iterator[Overview]:
        for node, workflow in structure.get("sub_dags", {}).items():
            if workflow not in self._seen:
                try:
                    yield self.look(workflow, node, node in subjobs)
                except Refused:
                    continue  # of another server, or beyond this token

    def _down(self, workflow: str) -> dict[str, str | None]:
        flags = self.server.flags(workflow)["flags"]
        return {
            flag["name"].partition(GROUP_SEPARATOR)[0]: flag["reason"]
            for flag in flags
            if not flag["is_up"]
        }

    def _queue(self, dagman: str | None) -> tuple[Dagman | None, dict[str, dict[str, Plain]]]:
        """Return what the schedd says of DAGMan's job, and its nodes' jobs by node."""
        cluster = "" if dagman is None else dagman.split("#")[1].partition(".")[0]
        if not cluster.isdigit() or self.schedd_gap is not None:
            return None, {}
        try:
            ads = read_jobs(
                f"DAGManJobId == {cluster} || ClusterId == {cluster}",
                _DAGMAN_ATTRIBUTES,
                self.schedd_name,
            )
            own = [ad for ad in ads if ad.get("GlobalJobId") == dagman]
            if own:
                jobs = [ad for ad in ads if ad.get("DAGManJobId") == int(cluster)]
                return _in_queue(own[0]), {str(ad.get("DAGNodeName")): ad for ad in jobs}
            past = read_history(
                f"ClusterId == {cluster}", _DAGMAN_ATTRIBUTES, None, 1, self.schedd_name
            )
            name = "" if past else locate(self.schedd_name).name
            born_at = None if past else queue_birthdate(self.schedd_name)
        except (ScheddUnavailable, BadConfig) as error:
            self.schedd_gap = str(error)
            return None, {}
        ended = [ad for ad in past if ad.get("GlobalJobId") == dagman]
        if ended:
            return _ended(ended[0]), {}
        if str(dagman).partition("#")[0] != name:
            return None, {}  # of another schedd
        if not of_queue(str(dagman), born_at).is_proof:
            text = "was in a job queue that its schedd has lost; its nodes' jobs may still run"
            return Dagman(f"{cluster}.0", False, text), {}
        return Dagman(f"{cluster}.0", False, "is neither in the queue nor in the history"), {}


def dagman_of(server: LeaseServer, workflow: str) -> str | None:
    """Return the GlobalJobId of the DAGMan that ran a workflow last; None when none is known."""
    subjobs = {
        summary["subjob"]: server.subjob(SubjobKey(workflow, summary["subjob"]))
        for summary in sorted(
            server.workflow(workflow)["subjobs"], key=lambda one: str(one["updated_at"])
        )[-_RECENT:]
    }
    return _dagman_job(subjobs)


def _dagman_job(subjobs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the GlobalJobId of the DAGMan that announced a try last, as PRE scripts name it."""
    newest, found = "", None
    for subjob in subjobs.values():
        for submission in subjob.get("submissions", ()):
            dag, slash, _ = (submission["global_job_id"] or "").rpartition("/")
            if slash and dag.count("#") == 2 and submission["at"] > newest:
                newest, found = submission["at"], dag
    return found


def _in_queue(ad: Mapping[str, Plain]) -> Dagman:
    job = job_number(ad)
    status = ad.get("JobStatus")
    if status == HELD:
        return Dagman(job, True, f"is held: {ad.get('HoldReason') or 'no reason given'}")
    return Dagman(job, True, "waits in the queue" if status == IDLE else "runs", True)


def _ended(ad: Mapping[str, Plain]) -> Dagman:
    job = job_number(ad)
    if ad.get("JobStatus") == REMOVED:
        return Dagman(job, False, f"was removed: {ad.get('RemoveReason') or 'no reason given'}")
    return Dagman(job, False, f"ended with exit code {ad.get('ExitCode', 'unknown')}")


def _nodes(
    kinds: Mapping[str, str],
    structure: Mapping[str, Any],
    subjobs: Mapping[str, Mapping[str, Any]],
    down: Mapping[str, str | None],
    jobs: Mapping[str, dict[str, Plain]],
    is_begun: bool,
    gone: str | None,
    retried_since: float,
) -> Iterator[Node]:
    blocked = _with_unfinished_parents(structure, subjobs)
    for name, kind in kinds.items():
        if name in subjobs:
            job = jobs.get(name)
            yield node_of(name, kind, subjobs[name], down, job, gone, retried_since)
        else:
            is_ready = is_begun and name not in blocked and kind != "final"
            yield not_begun(name, kind, is_ready, gone)
    for name, subjob in subjobs.items():
        if name not in kinds:
            node = name.rpartition(".")[0]
            yield node_of(name, "queued" if node in kinds else "job", subjob, down)


def _with_unfinished_parents(
    structure: Mapping[str, Any], subjobs: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    found: set[str] = set()
    for dependency in structure.get("dependencies", ()):
        parents = (subjobs.get(parent) for parent in dependency["parents"])
        if any(parent is None or parent["outcome"] != "complete" for parent in parents):
            found.update(dependency["children"])
    return found
