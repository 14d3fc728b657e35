"""`htlease agent` on a real pool: jobs that reach no server at all."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.agent import AgentProcess, install_shadow_hook
from tests.pool.agent_jobs import SMALL, closed, history, submit_program
from tests.pool.hooked import HookedSite
from tests.pool.lab import Lab, write_for_job


@pytest.fixture
def quick_updates(lab: Lab) -> Iterator[None]:
    """What a start says reaches the queue within seconds, not a quarter of an hour."""
    lab.pool.configure("ap", "agent-chirp", "SHADOW_QUEUE_UPDATE_INTERVAL = 3\n")
    yield
    lab.pool.configure("ap", "agent-chirp", None)


CHIRP_PLAN = """
[[phase]]
name = "fetch"
run = ["sh", "-c", "echo fetched"]
restart = "once"
[[phase]]
name = "compute"
run = ["sh", "-c", "cat $HTLEASE_DETAILS; echo half > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS; sleep SECONDS"]
restart = "resume"
"""


def submit_without_path(lab: Lab, name: str, plan: str, *lines: str) -> tuple[str, Path]:
    """Submit a wrapped job that knows no server and no token."""
    directory = lab.pool.job_directory(name)
    write_for_job(directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    write_for_job(directory / "plan.toml", plan.encode())
    further = ("transfer_input_files = plan.toml", "+HTLeaseNoPath = true", *lines)
    text = SMALL.format(
        program="htlease-ep.pyz",
        arguments="run --server chirp: --plan plan.toml",
        lines="\n".join(further),
    )
    return f"{lab.pool.submit(text, cwd=directory)}.0", directory


def phases_of(lab: Lab, key: str) -> list[tuple[str, str, str]]:
    """Return what was told of phases: event, phase, and the way it came."""
    return [
        (event["event"], event["phase"], event["via"])
        for event in history(lab, key)
        if event["event"].startswith("phase-")
    ]


def test_a_job_without_network_has_a_lease_and_its_phases_through_the_queue(
    lab: Lab, agent: AgentProcess, quick_updates: None
) -> None:
    via = f"chirp {lab.pool.ap_host} (htlease-agent)"
    plan = CHIRP_PLAN.replace("SECONDS", "12")
    job, directory = submit_without_path(lab, "chirp-all", plan, 'My.HTLeaseKey = "chirp/all"')
    lab.wait_for(
        lambda: ("phase-entered", "compute", via) in phases_of(lab, "chirp/all"),
        "the second phase to be known while it runs",
        90,
    )
    assert lab.pool.status(job) == "running"
    closed(lab, "chirp/all", "complete")
    assert phases_of(lab, "chirp/all") == [
        ("phase-entered", "fetch", via),
        ("phase-completed", "fetch", via),
        ("phase-entered", "compute", via),
        ("phase-completed", "compute", via),
    ]
    assert lab.server.subjob("chirp/all")["details"] == "half\n"
    assert (directory / "out").read_text().startswith("fetched\n")


def test_a_restart_without_network_goes_on_where_the_first_attempt_was(
    lab: Lab, agent: AgentProcess
) -> None:
    plan = CHIRP_PLAN.replace("SECONDS", "12")
    job, directory = submit_without_path(lab, "chirp-again", plan, 'My.HTLeaseKey = "chirp/again"')
    lab.pool.wait_event(directory / "log", 1)
    time.sleep(5)  # the starter sends what was delayed with its next update
    lab.pool.vacate(job)
    lab.pool.wait_event(directory / "log", 1, count=2)
    closed(lab, "chirp/again", "complete")
    grants = lab.server.events("chirp/again", "lease-acquired")
    assert [grant["fence"] for grant in grants if grant["kind"] == "job"] == [1, 2]
    phases = [(name, phase) for name, phase, _ in phases_of(lab, "chirp/again")]
    assert phases.count(("phase-entered", "fetch")) == 1
    assert phases.count(("phase-entered", "compute")) == 2
    assert "half" in (directory / "out").read_text()


def test_a_start_that_would_overlap_goes_back_to_idle_before_it_begins(
    lab: Lab, agent: AgentProcess
) -> None:
    acquire = {"nonce": "somebody-elses-nonce", "kind": "job", "ttl_seconds": 15}
    lab.server.command("chirp/live", "acquire", **acquire)
    plan = CHIRP_PLAN.replace("SECONDS", "0")
    job, directory = submit_without_path(lab, "chirp-live", plan, 'My.HTLeaseKey = "chirp/live"')
    closed(lab, "chirp/live", "complete")
    assert lab.pool.job_ad(job)["NumShadowStarts"] > 1
    assert lab.pool.job_ad(job)["NumJobStarts"] == 1
    assert not lab.pool.events(directory / "log", 12)


def test_a_bare_job_without_network_is_known_by_its_execution_points_hooks(
    lab: Lab, agent: AgentProcess
) -> None:
    site = HookedSite(lab)
    site.configure(HTLEASE_URL="http+insecure://no-such-host.invalid:1")
    try:
        lines = ('My.HTLeaseKey = "chirp/bare"', "+HTLeaseNoPath = true")
        program = "#!/usr/bin/env python3\nimport time\ntime.sleep(9)\n"
        _, directory = submit_program(lab, "chirp-bare", program, "", *lines)
        lab.pool.wait_event(directory / "log", 5)
        closed(lab, "chirp/bare", "complete")
    finally:
        site.remove()
    via = f"chirp {lab.pool.ap_host} (htlease-agent)"
    assert ("phase-entered", "run", via) in phases_of(lab, "chirp/bare")
    grants = lab.server.events("chirp/bare", "lease-acquired")
    assert [grant["fence"] for grant in grants if grant["kind"] == "job"] == [1]
    assert not lab.pool.events(directory / "log", 12)


def test_an_exclusive_phase_needs_a_live_connection(lab: Lab, agent: AgentProcess) -> None:
    """Here it is the site that has no network, not this job."""
    install_shadow_hook(lab, agent, url="chirp:")
    try:
        plan = '[[phase]]\nname = "push"\nrun = ["touch", "ran"]\nexclusive = true\n'
        lines = ('My.HTLeaseKey = "chirp/excl"', "+HTLeaseNoPath = false")
        job, directory = submit_without_path(lab, "chirp-excl", plan, *lines)
        lab.pool.wait_event(directory / "log", 5)
    finally:
        install_shadow_hook(lab, agent)
    assert lab.pool.job_ad(job)["ExitCode"] == 78
    assert "phase push is exclusive" in (directory / "err").read_text()
    assert not (directory / "ran").exists()
    event = closed(lab, "chirp/excl", "failed")
    assert "exit code 78" in event["reason"]


def test_a_lease_without_network_survives_a_crash_of_the_agent(
    lab: Lab, agent: AgentProcess
) -> None:
    plan = CHIRP_PLAN.replace("SECONDS", "12")
    _, directory = submit_without_path(lab, "chirp-crash", plan, 'My.HTLeaseKey = "chirp/crash"')
    lab.pool.wait_event(directory / "log", 1)
    agent.stop(signal.SIGKILL)
    agent.start()
    closed(lab, "chirp/crash", "complete")
    grants = lab.server.events("chirp/crash", "lease-acquired")
    assert [grant["kind"] for grant in grants] == ["job", "operator"]
    nonces = [path.read_text() for path in (agent.state / "starts").glob("*.json")]
    assert not any("chirp/crash" in text for text in nonces)
