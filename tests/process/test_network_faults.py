"""Requests that are lost, repeated, delayed or reordered lead to the same end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.process.execution import Sandbox
from tests.process.faulty_proxy import FAULTS, FaultyProxy
from tests.serving import ServerProcess

PLAN = """\
ttl_seconds = 20
[[phase]]
name = "fetch"
run = ["sh", "-c", "echo from-$HTLEASE_PHASE > fetched"]
restart = "once"
[[phase]]
name = "compute"
run = ["./compute.sh"]
restart = "resume"
[[phase]]
name = "push"
run = ["sh", "-c", "cat fetched > pushed"]
restart = "once"
exclusive = true
"""
COMPUTE = """\
for step in 1 2 3; do
    echo "step $step" > "$HTLEASE_DETAILS.new" && mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"
    sleep 0.4
done
"""
SEEDS = range(8)


@pytest.fixture
def proxies(server: ServerProcess) -> Iterator[Callable[[int], FaultyProxy]]:
    made: list[FaultyProxy] = []

    def new(seed: int) -> FaultyProxy:
        made.append(FaultyProxy(server.url, seed))
        return made[-1]

    yield new
    for proxy in made:
        proxy.close()


def prepared(sandbox: Sandbox) -> Sandbox:
    sandbox.write("plan.toml", PLAN)
    sandbox.script("compute.sh", COMPUTE)
    return sandbox


def end_state(server: ServerProcess, key: str) -> dict[str, Any]:
    """Return what must not depend on the network: no instants, hosts or IDs."""
    document = server.subjob(key)
    attempt = document["attempts"]
    phases = ("name", "entries", "entered_fence", "completed_fence", "failed_fence")
    return {
        "status": document["status"],
        "fence": document["fence"],
        "exit": (document["exit_code"], document["exit_signal"]),
        "details": (document["details"], document["details_phase"]),
        "phases": [{name: phase[name] for name in phases} for phase in document["phases"]],
        "attempts": [(one["fence"], one["end"], one["exit_code"]) for one in attempt],
    }


def test_a_job_behind_a_faulty_network_ends_as_behind_a_good_one(
    server: ServerProcess,
    new_sandbox: Callable[..., Sandbox],
    proxies: Callable[[int], FaultyProxy],
) -> None:
    plain = prepared(new_sandbox(server))
    assert plain.run("--plan", "plan.toml") == 0
    expected = end_state(server, plain.key)
    assert expected["status"] == "complete"
    assert expected["details"] == ("step 3\n", "compute")

    jobs = []
    for seed in SEEDS:
        sandbox, proxy = prepared(new_sandbox(server)), proxies(seed)
        sandbox.environ["HTLEASE_URL"] = proxy.url
        jobs.append((seed, sandbox, proxy, sandbox.start("--plan", "plan.toml")))
    seen = set()
    for seed, sandbox, proxy, process in jobs:
        assert process.wait(120) == 0, f"seed {seed}: {sandbox.messages}"
        proxy.close()
        assert end_state(server, sandbox.key) == expected, f"seed {seed}: {sandbox.messages}"
        assert sandbox.read("pushed") == "from-fetch\n"
        seen |= set(proxy.seen)
    assert seen == set(FAULTS), "every kind of fault happened"


def test_a_restart_behind_a_faulty_network_reclaims_its_phase(
    server: ServerProcess,
    new_sandbox: Callable[..., Sandbox],
    proxies: Callable[[int], FaultyProxy],
) -> None:
    jobs = []
    for seed in SEEDS:
        first = prepared(new_sandbox(server))
        first.environ["HTLEASE_URL"] = proxies(seed).url
        first.script("compute.sh", "echo up > computing; sleep 300")
        jobs.append((seed, first, first.start("--plan", "plan.toml")))
    for seed, first, process in jobs:
        first.wait_text("computing")
        first.kill_all()
        process.wait(20)
        second = prepared(new_sandbox(server, key=first.key, job_starts=1, shadow_starts=2))
        second.environ["HTLEASE_URL"] = proxies(1000 + seed).url
        second.write("fetched", "by the first attempt\n")
        assert second.run("--plan", "plan.toml") == 0, f"seed {seed}: {second.messages}"
        document = server.subjob(first.key)
        assert document["status"] == "complete"
        assert [one["fence"] for one in document["attempts"]] == [1, 2]
        fetch, compute, push = document["phases"]
        assert (fetch["entries"], fetch["completed_fence"]) == (1, 1)
        assert (compute["entries"], compute["completed_fence"]) == (2, 2)
        assert (push["entries"], push["completed_fence"]) == (1, 2)
