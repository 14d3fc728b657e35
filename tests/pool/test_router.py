"""The Job Router on a real pool: one subjob through copies, evictions and crashes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.pool.lab import Lab
from tests.pool.routing import (
    Agent,
    RoutedJob,
    found,
    kill_router,
    routed_by,
    submit_routed,
)

#: What the router passes on must come out as it went in; `\n` is two characters in a job's ad.
ODD_LINES = [
    r'My.OddQuoted = "a \"quoted\" word, a \ backslash and a \n"',
    'My.OddBlanks = "  two before, two after  "',
    'My.OddExpression = strcat("------", Owner) =!= undefined && (time() > 1.5E3 ? true : error)',
    'My.OddNested = [ a = { 1, "x = y", [ b = undefined ] } ]',
    'My.OddLetters = "Größe 数 %s $(NotAMacro)"',
    f'My.OddLong = "{"x" * 60_000}"',
    'My.HTLeaseNote = "an attribute of the user\'s"',
]


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[Agent]:
    """An agent beside an access point that routes jobs, with our hooks."""
    with routed_by(lab) as agent:
        yield agent


def test_a_copy_that_is_evicted_removed_and_held_stays_one_subjob(lab: Lab, agent: Agent) -> None:
    job = submit_routed(lab, "chain", {"block": {"compute": [1, 2, 3]}})
    first = job.wait_copy(status=2)
    job.source.wait_told("alive", "compute", attempt=1)
    lab.pool.vacate(f"{first['ClusterId']}.0")
    job.source.wait_told("alive", "compute", attempt=2)
    lab.pool.remove(f"{first['ClusterId']}.0")
    second = job.wait_copy(after=first["ClusterId"], status=2)
    job.source.wait_told("alive", "compute", attempt=3)
    copy = f"{second['ClusterId']}.0"
    lab.pool.hold(copy)
    lab.pool.wait_status(copy, "held")
    lab.pool.wait_status(job.source.job, "held")
    lab.pool.release(copy)
    document = job.source.wait_status("complete")
    ad = job.wait_final()
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2, 3, 4]
    assert job.epochs() == [1, 1, 2, 2]
    assert [ad[name] for name in ("HTLeaseState", "HTLeaseAttempt", "HTLeaseFence")] == [
        *("complete", 4, 4)
    ]
    assert len(job.source.told("end", "register")) == 1, "what is done once stays done"
    for identifier in (
        *(ad["GlobalJobId"], job.source.job),
        *(first["GlobalJobId"], f"{first['ClusterId']}.0"),
        *(second["GlobalJobId"], copy),
    ):
        assert job.source.key in found(lab, identifier), identifier


def test_an_ad_goes_through_the_hook_unchanged(lab: Lab, agent: Agent) -> None:
    job = submit_routed(lab, "odd", lines=ODD_LINES)
    copy = job.wait_copy()
    job.wait_final()

    def lines(name: str) -> list[str]:
        texts = [lab.pool.run([tool, "-l", name]).stdout for tool in ("condor_q", "condor_history")]
        text = next(text for text in texts if "ClusterId" in text)
        return [line for line in text.splitlines() if line.startswith(("Odd", "HTLeaseNote"))]

    assert len(lines(job.source.job)) == len(ODD_LINES)
    assert lines(f"{copy['ClusterId']}.0") == lines(job.source.job)


def test_only_the_copy_has_the_starters_hook_keyword(lab: Lab, agent: Agent) -> None:
    job = submit_routed(lab, "keyword", {"block": {"compute": [1]}, "block_seconds": 8})
    copy = job.wait_copy()
    assert copy["HookKeyword"] == "HTLEASE"
    assert "HookKeyword" not in job.source_ad()
    assert copy["HTLeaseKey"] == job.source.key
    assert copy["HTLeaseSource"] == job.source_ad()["GlobalJobId"]
    assert copy["HTLeaseRouteGeneration"] == 1
    job.source.wait_told("alive", "compute")
    lab.wait_for(
        lambda: job.source_ad().get("HTLeaseRouteGeneration") == 1, "the source to show it", 30
    )
    job.wait_final()


def test_a_job_that_opted_out_is_routed_as_it_is(lab: Lab, agent: Agent) -> None:
    key = "nothing/of-it"
    job = submit_routed(lab, "optout", lines=["My.HTLease = false"], key=key)
    copy = job.wait_copy()
    job.source.wait_gone()
    assert not {"HTLeaseSource", "HTLeaseRouteGeneration", "HTLeaseRecorded"} & copy.keys()
    assert found(lab, "of-it") == []


def test_a_killed_router_adopts_its_copies(lab: Lab, agent: Agent) -> None:
    job = submit_routed(lab, "crash", {"block": {"compute": [1, 2]}})
    copy = job.wait_copy(status=2)
    job.source.wait_told("alive", "compute", attempt=1)
    kill_router(lab)
    lab.pool.vacate(f"{copy['ClusterId']}.0")
    job.source.wait_told("alive", "compute", attempt=2)
    lab.pool.vacate(f"{copy['ClusterId']}.0")
    document = job.source.wait_status("complete")
    assert job.wait_final()["HTLeaseState"] == "complete"
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2, 3]
    assert job.epochs() == [1, 1, 1], "no other copy was made"


def _mirrored_after_the_end(job: RoutedJob, copy: str) -> None:
    """Remove the copy so that its last counters never reach the source."""
    router = job.lab.pool.daemon("condor_job_router", "ap")
    router.send(signal.SIGSTOP)
    try:
        job.lab.pool.remove(copy)
        # 102 is DestroyClassAd in the file that the router mirrors.
        log = job.lab.pool.directory / "ap/spool/job_queue.log"
        ended = f"\n102 {copy}"
        job.lab.wait_for(lambda: ended in log.read_text(), f"{copy} to leave the queue", 90)
    finally:
        router.send(signal.SIGCONT)


def _mirrored_before_the_end(job: RoutedJob, copy: str) -> None:
    """Remove the copy when the source has its last counters."""
    job.lab.pool.hold(copy)
    job.lab.wait_for(lambda: job.source_ad().get("NumJobStarts") == 2, "the mirror", 60)
    job.lab.pool.remove(copy)


@pytest.mark.parametrize(
    ("remove", "inherited_starts"),
    [(_mirrored_before_the_end, 2), (_mirrored_after_the_end, 1)],
    ids=["counters mirrored in time", "counters repeated by the next copy"],
)
def test_a_new_copy_is_newer_whatever_it_inherits(
    lab: Lab, agent: Agent, remove: object, inherited_starts: int
) -> None:
    job = submit_routed(lab, "race", {"block": {"compute": [1, 2]}})
    first = job.wait_copy(status=2)
    job.source.wait_told("alive", "compute", attempt=1)
    copy = f"{first['ClusterId']}.0"
    lab.pool.vacate(copy)
    job.source.wait_told("alive", "compute", attempt=2)
    lab.wait_for(lambda: job.source_ad().get("NumJobStarts") == 1, "the mirror", 60)
    assert callable(remove)
    remove(job, copy)
    second = job.wait_copy(after=first["ClusterId"])
    assert second["NumJobStarts"] == inherited_starts
    document = job.source.wait_status("complete")
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2, 3]
    assert job.epochs() == [1, 1, 2]
    assert job.source.told("start", "compute")[-1]["details"] == "compute of attempt 2"
    job.wait_final()


def test_a_job_is_routed_and_ends_while_the_server_is_away(lab: Lab, agent: Agent) -> None:
    lab.token(f"away-{lab.submitted + 1}")
    lab.server.stop()
    job = submit_routed(lab, "away", {"block": {"compute": [1]}, "block_seconds": 3})
    copy = job.wait_copy(status=2)
    assert "HTLeaseRouteGeneration" not in copy
    assert copy["HTLeaseKey"] == job.source.key
    lab.server.start()
    job.source.wait_told("alive", "compute")
    agent.signal(signal.SIGSTOP)
    try:
        job.source.wait_gone()
        lab.wait_for(
            lambda: job.source.job not in lab.pool.run(["condor_q", "-af:j", "1"]).stdout.split(),
            "the source to leave the queue",
            90,
        )
    finally:
        agent.signal(signal.SIGCONT)
    assert job.source.wait_status("complete")["epoch"] == 1


def test_a_removed_source_closes_its_subjob(lab: Lab, agent: Agent) -> None:
    job = submit_routed(lab, "removed", {"block": {"compute": [1]}})
    job.source.wait_told("alive", "compute")
    lab.pool.remove(job.source.job)
    document = job.source.wait_status("cancelled")
    assert "removed-by-user" in job.source.history()[-1]["reason"]
    assert len(document["attempts"]) >= 1
    lab.wait_for(lambda: not job.copies(), "the copy to be withdrawn", 60)
