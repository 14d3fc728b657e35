"""Nothing is taken for proof of an end while the payload lives: cut off, frozen, removed by force.

Every few seconds event logs and startds are asked as the relay asks them, and then the payloads
are looked at. A shadow notices a network that is cut within a minute or so, or by HTCondor's default after several.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import tenacity
from tests.pool.lab import PROJECT, Lab, write_for_job

#: How soon a shadow notices that a connection is cut, and how long to watch: the pool's own
#: setting, and HTCondor's default.
_KEEPALIVES = {
    "quick": ("TCP_KEEPALIVE_INTERVAL = 5", 150),
    "default": ("TCP_KEEPALIVE_INTERVAL = 360", 600),
}
_STUBBORN = "trap '' TERM\n"
_ASK = """
import json, sys
from htlease.end_proof import LogEvent, job_from, of_log, of_startd
from htlease_admin.bindings_process import read_history, read_jobs
from htlease_admin.relay.endings import ATTRIBUTES
from htlease_admin.schedd import ScheddUnavailable
from htlease_admin.startd import read_job_log, read_slots
found = {}
slots = {}
for job in sys.argv[1:]:
    constraint = f'GlobalJobId == "{job}"'
    ads = read_jobs(constraint, ATTRIBUTES) or read_history(constraint, ATTRIBUTES, None, 1)
    if not ads or ads[0].get("JobStatus") not in (1, 3, 4, 5):
        continue
    facts = job_from(ads[0])
    number = job.split("#")[-2]
    logs = read_job_log([ads[0]["UserLog"]], number)
    events = [LogEvent(*event) for event in logs[0]] if logs else []
    # What a rule would say that takes the 004 of a hold or a removal for proof by itself.
    acted = [e for e in events if e.number in (4, 9, 12)][-2:]
    is_act = [e.number for e in acted] in ([4, 9], [4, 12])
    lenient = [LogEvent(e.number, e.number == 4 and is_act or e.is_requeue) for e in events]
    if facts.startd and facts.startd not in slots:
        try:
            slots[facts.startd] = read_slots(facts.startd)
        except ScheddUnavailable:
            slots[facts.startd] = None
    by_startd = of_startd(job, facts, slots.get(facts.startd))
    found[job] = [of_log(events, facts), by_startd, of_log(lenient, facts)]
print(json.dumps(found))
"""
PROOFS = ("log", "startd", "004 of hold or removal")


@dataclass
class Case:
    """One job, what is done to it, and what was found."""

    name: str
    ep: str
    lease_seconds: int = 60
    before: str = ""
    seconds: int = 3000
    job: str = ""
    global_job_id: str = ""
    mark: str = ""
    #: Kind of proof -> seconds after the act at which it was there first.
    proven: dict[str, float] = field(default_factory=dict)
    #: Kind of proof -> how long after it the payload was seen alive last.
    alive_after: dict[str, float] = field(default_factory=dict)
    dead_at: float | None = None

    def submit(self, lab: Lab, run: str, number: int) -> None:
        # Seconds that no other process sleeps.
        self.mark = f"{self.seconds}.{number:04d}7"
        directory = lab.pool.job_directory(f"proof-{run}-{self.name}")
        script = f"#!/bin/sh\n{self.before}sleep {self.mark}\n"
        write_for_job(directory / "job.sh", script.encode(), 0o755)
        text = f"""
executable = job.sh
should_transfer_files = YES
request_cpus = 1
request_memory = 32
request_disk = 1
job_lease_duration = {self.lease_seconds}
job_max_vacate_time = 40
# One start each: a second would look like the first one going on.
requirements = Machine == "{lab.pool.ep_host(self.ep)}" && (NumShadowStarts ?: 0) < 1
log = log
queue
"""
        self.job = f"{lab.pool.submit(text, cwd=directory)}.0"
        self.global_job_id = str(lab.pool.job_ad(self.job)["GlobalJobId"])

    def is_alive(self) -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    return True
            except OSError:
                continue
        return False

    def note(self, found: Any, asked_at: float, now: float) -> None:
        for proof, (is_proof, _) in zip(PROOFS, found or (), strict=False):
            if is_proof:
                self.proven.setdefault(proof, asked_at)
        if self.is_alive():
            for proof, at in self.proven.items():
                self.alive_after[proof] = now - at
        elif self.dead_at is None and (found or self.proven):
            self.dead_at = now


def ask(lab: Lab, library: Path, cases: list[Case]) -> dict[str, Any]:
    roots = [str(PROJECT / root) for root in ("core", "wrappers", "dagman", "admin")]
    done = lab.pool.run(
        ["python3", "-c", _ASK, *(case.global_job_id for case in cases)],
        env={"PYTHONPATH": ":".join([*roots, str(library)])},
        check=False,
        timeout_seconds=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("keepalive", _KEEPALIVES)
def test_no_proof_is_there_before_the_payload_is_dead(
    lab: Lab, tmp_path: Path, keepalive: str
) -> None:
    pool = lab.pool
    knob, watch_seconds = _KEEPALIVES[keepalive]
    for host in ("ap", "ep1", "ep2"):
        pool.configure(host, "keepalive", knob)
    library = pool.job_directory(f"proof-lib-{keepalive}")
    for package in (click, tenacity):
        (library / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    near = [
        Case("ends-well", "ep1", seconds=25),
        Case("ends-well-without-lease", "ep1", lease_seconds=0, seconds=25),
        Case("removed", "ep1"),
        Case("held-stubborn", "ep1", before=_STUBBORN),
        Case("vacated-fast-frozen", "ep1"),
        Case("removed-by-force-stubborn", "ep1", before=_STUBBORN),
    ]
    far = [
        Case("cut-removed", "ep2"),
        Case("cut-held", "ep2"),
        Case("cut-removed-without-lease", "ep2", lease_seconds=0),
        Case("cut-held-without-lease", "ep2", lease_seconds=0),
        Case("cut-removed-by-force", "ep2"),
        Case("cut-shadow-killed", "ep2"),
        Case("cut-left-alone", "ep2"),
    ]
    cases = near + far
    for number, case in enumerate(cases):
        case.submit(lab, keepalive, number)
    for case in cases:
        if not case.name.startswith("ends-well"):
            lab.wait_for(case.is_alive, f"{case.name} to run", 120)
    time.sleep(5)  # an act right after the start leaves its slot in a state of its own
    by_name = {case.name: case for case in cases}
    began_at = time.monotonic()
    pool.cut_network("ep2")
    try:
        act(lab, by_name)
        ended = watch(lab, library, cases, began_at, watch_seconds)
    finally:
        pool.heal_network("ep2")
        for host in ("ap", "ep1", "ep2"):
            pool.configure(host, "keepalive", None)
    watch(lab, library, cases, began_at, ended + 90)
    table = "\n".join(
        f"{case.name:28} dead {case.dead_at and round(case.dead_at)}  "
        f"proven { {k: round(v) for k, v in case.proven.items()} }  "
        f"alive after { {k: round(v) for k, v in case.alive_after.items()} }"
        for case in cases
    )
    (tmp_path / "table").write_text(table)
    print(table)  # shown by -s, to compare with docs/decisions/0017-proof-of-an-end.md
    for proof in PROOFS[:2]:
        assert not [case.name for case in cases if proof in case.alive_after], table
    assert "log" in by_name["ends-well"].proven, table
    assert "log" not in by_name["ends-well-without-lease"].proven, table
    for name in ("ends-well-without-lease", "removed", "held-stubborn"):
        assert "startd" in by_name[name].proven, table


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


def watch(lab: Lab, library: Path, cases: list[Case], began_at: float, until: float) -> float:
    """Ask and look until the time is over or nothing more can come; return when that was."""
    while True:
        asked_at = time.monotonic() - began_at
        found = ask(lab, library, cases)
        for case in cases:
            case.note(found.get(case.global_job_id), asked_at, time.monotonic() - began_at)
        if asked_at > until or all(case.dead_at is not None for case in cases):
            return asked_at
        time.sleep(2)
