"""A DAG of fifty nodes while jobs, DAGMan, schedd and lease server are hit at random."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import signal
import time

from tests.pool.dag import Dag
from tests.pool.lab import Lab

from htlease_lab.pool import PoolError

WIDTH, RANKS = 16, 3
SEED = int(os.environ.get("HTLEASE_FAULT_SEED", "20261121"))
#: The first job of these nodes fails.
FLAKY_EVERY = 7


def lines() -> tuple[list[str], list[str]]:
    """Return names and lines of a diamond whose nodes have two parents in the rank before."""
    ranks = [[f"N{rank}x{place}" for place in range(WIDTH)] for rank in range(RANKS)]
    names = ["TOP", *(name for rank in ranks for name in rank), "BOTTOM"]
    found = [
        f"JOB {n} {'flaky' if i % FLAKY_EVERY == 3 else 'job'}.sub" for i, n in enumerate(names)
    ]
    found += [
        f"PARENT TOP CHILD {' '.join(ranks[0])}",
        f"PARENT {' '.join(ranks[-1])} CHILD BOTTOM",
    ]
    for upper, lower in itertools.pairwise(ranks):
        for place, name in enumerate(lower):
            found.append(f"PARENT {upper[place]} {upper[(place + 1) % WIDTH]} CHILD {name}")
    return names, [*found, "RETRY ALL_NODES 5"]


class Faults:
    """What happens to a DAG while it runs, in an order of chance."""

    def __init__(self, lab: Lab, dag: Dag) -> None:
        self.lab, self.dag = lab, dag
        self.chance = random.Random(SEED)
        faults = [self.vacate] * 3 + [self.kill_shadow] * 2 + [self.kill_dagman] * 2
        self.left = [*faults, self.kill_server, self.kill_server, self.kill_schedd]
        self.chance.shuffle(self.left)
        self.done: list[str] = []

    def next(self) -> None:
        """Do something bad."""
        time.sleep(self.chance.uniform(0.5, 3.0))
        fault = self.left.pop()
        fault()
        self.done.append(fault.__name__)

    def _running(self) -> str:
        """Return a job that runs now, or soon: a schedd may have to come back first."""

        def running() -> list[str]:
            try:
                ads = self.lab.pool.jobs()
            except PoolError:
                return []
            of_nodes = [ad for ad in ads if ad["JobStatus"] == 2 and ad.get("DAGNodeName")]
            return [f"{ad['ClusterId']}.{ad['ProcId']}" for ad in of_nodes]

        found: list[str] = self.lab.wait_for(running, "a job to run", 60)
        return self.chance.choice(found)

    def vacate(self) -> None:
        try:
            self.lab.pool.vacate(self._running(), fast=self.chance.random() < 0.5)
        except PoolError:
            self.vacate()  # the job had just ended

    def kill_shadow(self) -> None:
        try:
            self.lab.pool.kill_shadow(self._running())
        except PoolError:
            self.kill_shadow()  # the job had just ended

    def kill_dagman(self) -> None:
        self.dag.kill_dagman()

    def kill_schedd(self) -> None:
        self.dag.kill_schedd()

    def kill_server(self) -> None:
        self.lab.server.stop(signal.SIGKILL)
        time.sleep(self.chance.uniform(0.0, 3.0))
        self.lab.server.start()


def test_fifty_nodes_end_complete_whatever_is_killed(lab: Lab) -> None:
    names, text = lines()
    scripts = {name: {"post": ["note.sh", "$JOB", "$RETRY", "$DAGID", "$RETURN"]} for name in names}
    dag = Dag(
        lab,
        "fifty",
        text,
        scripts=scripts,
        behaviour={"block": {"compute": [1]}, "block_seconds": 2},
    )
    dag.write("note.sh", '#!/bin/sh\necho "$1 $2 $3" >> ran\n[ "$4" = 0 ]\n', 0o755)
    (dag.directory / "flaky").mkdir()
    told = {"witness": lab.witness.url, "exit": {"compute": {"1": 5}}}
    dag.write("flaky/behaviour.json", json.dumps(told))
    job = (dag.directory / "job.sub").read_text()
    dag.write("flaky.sub", job.replace(" behaviour.json", " flaky/behaviour.json"))
    dag.submit()
    faults = Faults(lab, dag)
    while faults.left:
        assert dag.last_ad() is None, f"the DAG ended before it was hit: {faults.done}"
        faults.next()
    ended = dag.wait(200)
    print(f"seed {SEED}: {', '.join(faults.done)}")
    assert ended == 0, f"{faults.done}\n{dag.explain()}"
    for name in names:
        events = lab.server.history(dag.key(name))
        closings = [event["by"] for event in events if event["event"] == "subjob-closed"]
        assert closings.count("committed") == 1, (name, closings)
        assert closings[-1] == "committed", (name, closings)
        register = lab.witness.notes(dag.key(name), "end", "register")
        assert len(register) == 1, (name, register)
    runs = collections.Counter(dag.ran)
    assert {line.split()[0] for line in runs} == set(names)
    assert set(runs.values()) == {1}, [line for line, count in runs.items() if count > 1]
    before = [lab.server.history(dag.key(name)) for name in names]
    dag.submit("-f")
    assert dag.wait(120) == 0, dag.explain()
    assert [lab.server.history(dag.key(name)) for name in names] == before
    assert collections.Counter(dag.ran) == runs
