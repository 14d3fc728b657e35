"""Nothing is taken for proof of an end while the payload lives: cut off, frozen, removed by force.

Every job holds a lease that nobody gives up. An agent watches, `htlease dag reconcile` is run again
and again, and what POST and HOLD scripts would judge is asked for; then the payloads are looked
at. Slow: HTCondor takes minutes to notice a cut connection, and its own default is not shortened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.pool.agent import AgentProcess
from tests.pool.lab import Lab, write_for_job

#: TCP_KEEPALIVE_INTERVAL, and how long to watch at most: the pool's own, and HTCondor's default.
_KEEPALIVES = {"quick": (5, 200), "default": (360, 560)}
_STUBBORN = "trap '' TERM\n"
_LEASE_SECONDS = 7200.0
#: Runs on the access point; what is judged is printed for each job that somebody would judge.
_ASK = """
import concurrent.futures, json, os, sys
from htlease.condor.queued_ad import COMPLETED
from htlease.rules.end_proof import LogEvent, job_from, of_log
from htlease.condor.bindings_process import read_history, read_jobs
from htlease_agent.reconcile.job_end import ATTRIBUTES, End
from htlease_agent.reconcile.evidence import AskedEvidence
from htlease.condor.startd import read_job_log
from htlease_dagman.scripts.start_over import finding

evidence = AskedEvidence(None)

def judged(job):
    constraint = f'GlobalJobId == "{job}"'
    ads = read_jobs(constraint, ATTRIBUTES) or read_history(constraint, ATTRIBUTES, None, 1)
    if not ads or ads[0].get("JobStatus") not in (1, 3, 4, 5):
        return None
    ad, number = ads[0], job.split("#")[-2]
    facts, log = job_from(ad), os.path.join(ad["Iwd"], ad["UserLog"])
    end = End(job, "w/s", COMPLETED, 1, 1, 0, None, "", False, facts, log)
    events = [LogEvent(*event) for event in (read_job_log([log], number) or [[]])[0]]
    # What a rule would say that takes the 004 of a hold or a removal for proof by itself.
    acted = [event.number for event in events if event.number in (4, 9, 12)][-2:]
    lenient = [
        LogEvent(one.number, one.is_requeue or (one.number == 4 and acted in ([4, 9], [4, 12])))
        for one in events
    ]
    as_node = {**ad, "DAGManNodesLog": log}
    return {
        "log": of_log(events, facts),
        "agent": evidence.finding(end),
        "POST": finding(number, as_node),
        "HOLD": finding(number, as_node, may_run_again=True),
        "004 of hold or removal": of_log(lenient, facts),
    }

with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(judged, sys.argv[1:])))))
"""
#: What htlease goes by; the last of the others is what it must not go by.
_OURS = ("log", "agent", "POST", "HOLD", "server")


@dataclass
class Case:
    """One job, what is done to it, and what was found."""

    name: str
    ep: str
    #: Never 0: 23.9.6 then ends each start before it runs anything.
    lease: str = "60"
    before: str = ""
    seconds: int = 3000
    job: str = ""
    global_job_id: str = ""
    key: str = ""
    log: Path = Path()
    mark: str = ""
    #: Who -> seconds after the cut at which the end was proven first, and by what.
    proven: dict[str, tuple[float, str]] = field(default_factory=dict)
    #: Who -> how many seconds later the payload was seen alive last.
    alive_after: dict[str, float] = field(default_factory=dict)
    dead_at: float | None = None

    def submit(self, lab: Lab, workflow: str, number: int) -> None:
        # Seconds that no other process sleeps.
        self.mark = f"{self.seconds}.{number:04d}7"
        self.key = f"{workflow}/{self.name}"
        directory = lab.pool.job_directory(f"{workflow}-{self.name}")
        self.log = directory / "log"
        script = f"#!/bin/sh\n{self.before}sleep {self.mark}\n"
        write_for_job(directory / "job.sh", script.encode(), 0o755)
        text = f"""
executable = job.sh
should_transfer_files = YES
request_cpus = 1
request_memory = 32
request_disk = 1
job_lease_duration = {self.lease}
job_max_vacate_time = 40
requirements = Machine == "{lab.pool.ep_host(self.ep)}"
log = log
My.HTLeaseKey = "{self.key}"
queue
"""
        self.job = f"{lab.pool.submit(text, cwd=directory)}.0"
        self.global_job_id = str(lab.pool.job_ad(self.job)["GlobalJobId"])
        lab.server.command(
            self.key,
            "acquire",
            nonce=f"{number:016x}",
            global_job_id=self.global_job_id,
            evidence={"job_starts": 1, "shadow_starts": 1},
            ttl_seconds=_LEASE_SECONDS,
        )

    def is_alive(self) -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    return True
            except OSError:
                continue
        return False

    def note(self, found: dict[str, Any] | None, asked_at: float, now: float) -> None:
        for who, (is_proof, why) in (found or {}).items():
            if is_proof:
                self.proven.setdefault(who, (asked_at, why))
        if self.is_alive():
            for who, (at, _) in self.proven.items():
                self.alive_after[who] = now - at
        elif self.dead_at is None:
            self.dead_at = now

    def told(self) -> str:
        proven = {who: round(at) for who, (at, _) in self.proven.items()}
        early = {who: round(seconds) for who, seconds in self.alive_after.items()}
        dead = None if self.dead_at is None else round(self.dead_at)
        return f"{self.name:28} dead {dead}  proven {proven}  alive after {early}"


@dataclass
class Watch:
    """Asks everybody who may report an end, from the moment of the cut."""

    lab: Lab
    workflow: str
    agent: AgentProcess
    cases: list[Case]
    began_at: float = 0.0

    def run(self, until: float) -> None:
        """Look until so many seconds after the cut, or until nothing more can come."""
        while True:
            asked_at = time.monotonic() - self.began_at
            self.agent.python("-m", "htlease_cli.cli", "dag", "reconcile", self.workflow)
            told = self.agent.python("-c", _ASK, *(case.global_job_id for case in self.cases))
            found: dict[str, dict[str, Any] | None] = json.loads(told)
            for case in self.cases:
                judged = dict(found[case.global_job_id] or {})
                status = self.lab.server.subjob(case.key)["status"]
                judged["server"] = (status not in ("active", "recalled"), status)
                case.note(judged, asked_at, time.monotonic() - self.began_at)
            if asked_at > until or all(case.dead_at is not None for case in self.cases):
                return


@pytest.fixture
def agent(lab: Lab) -> Iterator[AgentProcess]:
    """An agent that watches and gives no job anything."""
    agent = AgentProcess(lab, "--poll", "1").beside("proof")
    agent.start()
    yield agent
    agent.stop()


def cases() -> list[Case]:
    """Return the rows of `docs/decisions/0017-proof-of-an-end.md` that can be acted out."""
    return [
        Case("ends-well", "ep1", seconds=25),
        Case("ends-well-without-lease", "ep1", lease="undefined", seconds=25),
        Case("removed", "ep1"),
        Case("held-stubborn", "ep1", before=_STUBBORN),
        Case("vacated-fast-frozen", "ep1"),
        Case("removed-by-force-stubborn", "ep1", before=_STUBBORN),
        Case("cut-removed", "ep2"),
        Case("cut-held", "ep2"),
        Case("cut-removed-without-lease", "ep2", lease="undefined"),
        Case("cut-held-without-lease", "ep2", lease="undefined"),
        Case("cut-removed-by-force", "ep2"),
        Case("cut-shadow-killed", "ep2"),
        Case("cut-left-alone", "ep2"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("keepalive", _KEEPALIVES)
def test_nobody_reports_an_end_while_the_payload_lives(
    lab: Lab, agent: AgentProcess, keepalive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = lab.pool
    interval_seconds, watch_seconds = _KEEPALIVES[keepalive]
    for host in ("ap", "ep1", "ep2"):
        pool.configure(host, "keepalive", f"TCP_KEEPALIVE_INTERVAL = {interval_seconds}")
    watch = Watch(lab, f"proof-{keepalive}", agent, cases())
    for number, case in enumerate(watch.cases):
        case.submit(lab, watch.workflow, number)
    by_name = {case.name: case for case in watch.cases}
    for case in watch.cases:
        if not case.name.startswith("ends-well"):
            lab.wait_for(case.is_alive, f"{case.name} to run", 120)
    # An act within a second of the start leaves its slot in a state of its own.
    for case in watch.cases:
        pool.wait_event(case.log, 1)
    # A second start would look like the first one going on.
    pool.run(["condor_qedit", "-constraint", "true", "Requirements", "false"])
    watch.began_at = time.monotonic()
    pool.cut_network("ep2")
    try:
        act(lab, by_name)
        watch.run(watch_seconds)
    finally:
        pool.heal_network("ep2")
        for host in ("ap", "ep1", "ep2"):
            pool.configure(host, "keepalive", None)
    watch.run(time.monotonic() - watch.began_at + 90)
    table = "\n".join(case.told() for case in watch.cases)
    with capsys.disabled():
        print(f"\n{table}")  # to compare with docs/decisions/0017-proof-of-an-end.md
    for who in _OURS:
        assert not [case.name for case in watch.cases if who in case.alive_after], table
    # It is no silence: what can be proven is, to all who ask.
    for name in ("ends-well-without-lease", "removed", "held-stubborn"):
        assert {"agent", "POST", "HOLD"} <= by_name[name].proven.keys(), table
    assert "log" in by_name["ends-well"].proven, table
    assert "log" not in by_name["ends-well-without-lease"].proven, table
    for name in ("ends-well", "ends-well-without-lease", "removed"):
        assert "server" in by_name[name].proven, table


def act(lab: Lab, case: dict[str, Case]) -> None:
    """Do to each job what its name says."""
    pool = lab.pool
    pool.freeze(case["vacated-fast-frozen"].job)
    pool.vacate(case["vacated-fast-frozen"].job, fast=True)
    for name in ("removed", "cut-removed", "cut-removed-without-lease"):
        pool.remove(case[name].job)
    for name in ("held-stubborn", "cut-held", "cut-held-without-lease"):
        pool.hold(case[name].job)
    for name in ("removed-by-force-stubborn", "cut-removed-by-force"):
        pool.remove(case[name].job)
    time.sleep(3)
    for name in ("removed-by-force-stubborn", "cut-removed-by-force"):
        pool.run(["condor_rm", "-forcex", case[name].job])
    pool.kill_shadow(case["cut-shadow-killed"].job)
    pool.remove(case["cut-shadow-killed"].job)
