"""How jobs end and come back on real daemons: without a server, asked to end, suspended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pool.lab import Lab, TestJob

_README = Path(__file__).parents[2] / "README.md"
_NO_SERVER = "--server http://127.0.0.1:9 --wait-server 0"
_ONCE = '[[phase]]\nname = "push"\nrun = ["touch", "ran"]\nrestart = "once"\n'
#: Ends with 0 when it is asked to end; its second start is the last.
_OBLIGING = b"""#!/bin/sh
trap 'exit 0' TERM
[ "$HTLEASE_ATTEMPT_NUMBER" -gt 1 ] && exit 0
while :; do sleep 0.1; done
"""
#: Leaves a process behind that ignores SIGTERM; the wrapper has a second to say goodbye.
_STUBBORN = b"""#!/bin/sh
[ "$HTLEASE_ATTEMPT_NUMBER" -gt 1 ] && exit 0
sh -c 'trap "" TERM; while :; do sleep 0.1; done' &
trap 'exit 9' TERM
while :; do sleep 0.1; done
"""
_EXCLUSIVE = """
[[phase]]
name = "x"
run = ["./p"]
restart = "once"
exclusive = true
"""
_EXITS = b"#!/bin/sh\nexit %d\n"
_SLEEPER = b"#!/bin/sh\nsleep 14\nexit 4\n"


def lines_for_no_server() -> list[str]:
    """Return what the two-line example of the README adds for a server that is away."""
    found = re.findall(r"^ *(on_exit_\w+ *= .*)$", _README.read_text(), re.MULTILINE)
    assert len(found) == 3
    return [line.replace("NumJobCompletions >= 9", "NumJobCompletions >= 2") for line in found]


@pytest.fixture(scope="module")
def jobs(lab: Lab) -> Iterator[dict[str, TestJob]]:
    """Jobs that run side by side; each test looks after one."""
    away = lines_for_no_server()
    run = "-- ./p"
    yield {
        "away": lab.submit(
            "away", plan=_ONCE, arguments=f"{_NO_SERVER} --plan plan.toml", lines=away
        ),
        "refused": lab.submit(
            "refused",
            arguments=run,
            files={"p": _EXITS % 0, "htlease.token": b"expired"},
            lines=away,
        ),
        "own 78": lab.submit("own", arguments=run, files={"p": _EXITS % 78}, lines=away),
        "own 75": lab.submit("own", arguments=run, files={"p": _EXITS % 75}, lines=away),
        "untracked": lab.submit(
            "untracked", arguments=f"{_NO_SERVER} {run}", files={"p": _EXITS % 5}
        ),
        "vacated": lab.submit("vacated", arguments=run, files={"p": _OBLIGING}),
        "held": lab.submit("held", arguments=run, files={"p": _OBLIGING}),
        "stubborn": lab.submit(
            "stubborn",
            arguments=run,
            files={"p": _STUBBORN},
            ttl_seconds=120,
            lines=["job_max_vacate_time = 1"],
        ),
        "suspended": lab.submit("suspended", plan=_EXCLUSIVE, files={"p": _SLEEPER}, ttl_seconds=6),
    }


def test_without_a_server_what_must_not_run_goes_back_to_idle_and_is_held_in_the_end(
    lab: Lab, jobs: dict[str, TestJob]
) -> None:
    job = jobs["away"]
    ad = _when(lab, job, JobStatus=5)
    assert ad["HoldReason"].startswith("htlease: no lease could be had")
    assert ad["NumJobCompletions"] == 2
    assert not (job.directory / "ran").exists()


def test_a_payloads_own_75_is_the_jobs(lab: Lab, jobs: dict[str, TestJob]) -> None:
    ad = jobs["own 75"].wait_gone()
    assert (ad["ExitCode"], ad["NumJobStarts"]) == (75, 1)


def test_a_job_whose_token_is_refused_is_held_at_once_and_not_lost(
    lab: Lab, jobs: dict[str, TestJob]
) -> None:
    ad = _when(lab, jobs["refused"], JobStatus=5)
    assert ad["HoldReason"].startswith("htlease: no lease could be had"), ad["HoldReason"]
    assert (ad["ExitCode"], ad["NumJobCompletions"]) == (78, 1)


def test_a_payload_may_end_with_78_itself(jobs: dict[str, TestJob]) -> None:
    ad = jobs["own 78"].wait_gone()
    assert (ad["ExitCode"], ad["NumJobStarts"]) == (78, 1)


def test_without_a_server_any_other_job_runs_untracked(lab: Lab, jobs: dict[str, TestJob]) -> None:
    ad = jobs["untracked"].wait_gone()
    assert (ad["ExitCode"], ad["NumJobStarts"]) == (5, 1)


def test_a_suspended_exclusive_payload_goes_on(lab: Lab, jobs: dict[str, TestJob]) -> None:
    job = jobs["suspended"]
    job.wait_status("active")
    lab.pool.run(["condor_suspend", job.job])
    _when(lab, job, JobStatus=7)
    lab.wait_for(lambda: job.subjob()["status"] == "lapsed", "its lease to run out", 60)
    lab.pool.run(["condor_continue", job.job])
    ad = job.wait_gone()
    assert (ad["ExitCode"], len(job.grants())) == (4, 1), job.explain()


@pytest.mark.parametrize("how", ["vacated", "held"])
def test_what_ends_well_because_it_was_asked_to_is_not_done(
    lab: Lab, jobs: dict[str, TestJob], how: str
) -> None:
    job = jobs[how]
    job.wait_status("active")
    if how == "held":
        lab.pool.run(["condor_hold", job.job])
        _when(lab, job, JobStatus=5)
        subjob = job.wait_status("abandoned")
        assert subjob["outcome"] is None
        lab.pool.run(["condor_release", job.job])
    else:
        lab.pool.run(["condor_vacate_job", job.job])
    ad = job.wait_gone()
    assert (ad["ExitCode"], ad["NumJobStarts"]) == (0, 2), job.explain()
    assert [attempt["end"] for attempt in job.subjob()["attempts"]] == ["abandoned", "exited"]


def test_a_leftover_that_ignores_term_does_not_hold_up_the_next_start(
    lab: Lab, jobs: dict[str, TestJob]
) -> None:
    job = jobs["stubborn"]
    job.wait_status("active")
    lab.pool.run(["condor_vacate_job", job.job])
    ad = job.wait_gone()
    assert (ad["ExitCode"], ad["NumJobStarts"]) == (0, 2), job.explain()
    assert [attempt["end"] for attempt in job.subjob()["attempts"]] == ["abandoned", "exited"]


def _when(lab: Lab, job: TestJob, **attributes: Any) -> dict[str, Any]:
    """Wait until a job's ad says something, and return it."""

    def found() -> dict[str, Any] | None:
        ad = lab.pool.job_ad(job.job)
        return ad if attributes.items() <= ad.items() else None

    ad: dict[str, Any] = lab.wait_for(found, f"{job.job} to have {attributes}", 150)
    return ad
