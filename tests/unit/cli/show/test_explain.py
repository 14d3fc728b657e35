"""Every way to get, await or lose a lease is told in words that name the other attempt."""

from __future__ import annotations

import pytest
from tests.unit.cli.show.recorder import SLOT, Recorder
from tests.unit.core.rules.world import GJID, STAGED

from htlease.rules import messages as m
from htlease.rules.plan import Plan
from htlease_cli.show.explain import explain


@pytest.fixture
def world() -> Recorder:
    return Recorder()


def told(world: Recorder, which: str | None = None) -> str:
    stories = explain(world.documents, which)
    sentences = [sentence for story in stories for sentence in story.sentences]
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    assert "nonce" not in " ".join(sentences)
    return "\n".join(sentences)


def test_the_first_attempt_got_what_nobody_had_held(world: Recorder) -> None:
    world.grant("a", 1)
    story = told(world)
    assert f"Attempt 1 ({GJID}@1.1) on ep1 got the lease" in story
    assert "with fence 1, because nobody had held the lease before" in story
    assert "It has the lease, as far as the history tells." in story


def test_a_given_up_lease_is_told_with_its_reason_and_its_heir(world: Recorder) -> None:
    world.grant("a", 1)
    world.write("a", m.Enter, "stage-in")
    world.write("a", m.Abandon, "SIGTERM from HTCondor")
    world.grant("b", 2)
    assert "it gave the lease up: SIGTERM from HTCondor." in told(world, "1")
    assert "because attempt 1 had given the lease up" in told(world, "2")


def test_a_lease_that_ran_out_says_so_on_both_sides(world: Recorder) -> None:
    world.grant("a", 1)
    world.now += 500
    world.grant("b", 2)
    assert "It did not renew in time and so lost the lease, which attempt 2 got" in told(world, "1")
    assert "because the lease of attempt 1 had run out" in told(world, "2")


def test_a_recalled_lease_that_ran_out_is_not_called_unrenewed(world: Recorder) -> None:
    world.grant("a", 1)
    world.acquire("b", 2)
    world.now += 500
    world.grant("b", 2)
    assert "It did not finish by its deadline and so lost the lease" in told(world, "1")


def test_each_attempt_has_a_story_of_its_own(world: Recorder) -> None:
    world.grant("a", 1)
    world.now += 500
    world.grant("b", 2)
    ids = [story.attempt_id for story in explain(world.documents)]
    assert ids == [f"{GJID}@1.1", f"{GJID}@2.2"]


def test_the_same_slot_is_named_as_proof_on_both_sides(world: Recorder) -> None:
    world.grant("a", 1, place=SLOT)
    world.grant("b", 2, place=SLOT)
    assert "lost the lease to attempt 2, because that one started in the same slot" in told(
        world, "1"
    )
    assert "it runs in the very slot of attempt 1" in told(world, "2")


def test_takeover_immediate_is_told_as_the_plans_will(world: Recorder) -> None:
    world.plan = Plan(STAGED.phases, "immediate")
    world.grant("a", 1)
    world.grant("b", 2)
    assert "lost the lease to attempt 2, because the plan lets a newer attempt" in told(world, "1")


def test_equal_job_starts_are_told_apart_by_the_shadow_start(world: Recorder) -> None:
    world.grant("a", 1, shadow=1, place=SLOT)
    world.grant("b", 1, shadow=3, place=SLOT)
    assert f"Attempt 2 ({GJID}@1.3)" in told(world, "2")


def test_a_waiting_attempt_is_told_from_its_first_request_to_its_grant(world: Recorder) -> None:
    world.grant("a", 1)
    world.acquire("b", 2)
    assert f"attempt {GJID}@2.2 on ep1 asked for the lease and was told to wait" in told(world)
    assert "has not had the lease since." in told(world)
    world.write("a", m.Abandon, "recalled")
    world.grant("b", 2)
    story = told(world, "2")
    assert story.index("was told to wait") < story.index("got the lease")
    assert "has not had the lease since." not in story
    assert f"its lease was recalled, because {GJID}@2.2 is newer" in told(world, "1")


def test_a_zombies_late_writes_are_told_with_the_fence_that_shut_them_out(world: Recorder) -> None:
    world.grant("a", 1)
    world.now += 500
    world.grant("b", 2)
    world.write("a", m.Fail, "stage-in")
    story = told(world, "1")
    assert "it tried to write under fence 1 (fail), which was refused and changed nothing" in story
    assert "attempt 2 has had fence 2 since" in story


def test_an_older_attempt_that_asks_again_is_refused_for_good(world: Recorder) -> None:
    world.grant("a", 1)
    world.now += 500
    world.grant("b", 2)
    world.acquire("z", 1)
    assert "attempt 1 on ep1 asked for the lease and was refused for good" in told(world, "1")


def test_a_closed_subjob_says_what_closed_it(world: Recorder) -> None:
    world.grant("a", 1)
    world.run("a", "stage-in", "compute", "stage-out")
    assert "closed as complete: its last phase is once and complete." in told(world)
    world.acquire("b", 2)
    assert "was told that there is nothing to do: the subjob is complete." in told(world)


def test_an_exit_and_the_reclaim_after_it(world: Recorder) -> None:
    world.plan = Plan.single()
    world.grant("a", 1)
    world.write("a", m.Exited, None, 9)
    world.grant("b", 2)
    assert "its payload ended (killed by signal 9), and the lease with it." in told(world, "1")
    assert "the payload of attempt 1 had ended and was not committed" in told(world, "2")


def test_without_attempts_only_the_end_is_told(world: Recorder) -> None:
    world.send(m.Enroll())
    assert told(world).startswith("No attempt has asked for the lease yet.\nA job that leaves ")
    world.send(m.Cancel("not submitted"))
    assert told(world).endswith("closed as cancelled: it was cancelled: not submitted.")


def test_scripts_are_called_scripts(world: Recorder) -> None:
    world.grant("a", 1)
    world.write("a", m.Exited, 0)
    world.grant("p", 1, kind="post")
    assert "The POST script" in told(world)


def test_attempts_are_found_by_number_id_and_fence(world: Recorder) -> None:
    world.grant("a", 1)
    world.now += 500
    world.grant("b", 2)
    assert told(world, "2") == told(world, f"{GJID}@2.2") == told(world, "fence:2")
    assert explain(world.documents, "3") == []


def test_a_new_submission_of_a_failed_subjob_is_told_as_one(world: Recorder) -> None:
    world.grant("a", 1)
    world.write("a", m.Settle, "failed", "bad input")
    world.grant("b", 1, gjid="ap1#43.0#1795229999")
    assert "it was settled on the access point: bad input." in told(world, "1")
    assert "because it is a new submission of a subjob that had failed" in told(world, "2")


def test_holds_and_removals_are_told_with_whose_they_are(world: Recorder) -> None:
    world.grant("a", 1)
    world.send(m.Observed(GJID, "held", "user", "disk full", 1, 0))
    world.send(m.Observed(GJID, "released", "htlease", "go on"))
    world.send(m.Observed(GJID, "removed", "dagman"))
    world.send(m.Observed("ap1#9.0#1", "removed", "user"))
    story = told(world, "1")
    assert "its job was held by its user: disk full (hold code 1.0)." in story
    assert "its job was released by htlease: go on." in story
    assert story.count("its job was removed by") == 1 and "removed by DAGMan." in story
