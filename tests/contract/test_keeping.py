"""What keeps a store of any size quick and its fences above all that it may have forgotten."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.contract.drill import KEY, Drill, acquire, nonce
from tests.contract.stores import StoreKind, only_exclusive

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease_server.engine.batch import PendingRequest
from htlease_server.engine.site.retention import Trim, Trimmed

PLAN = Plan((PhaseSpec("run", "once"),))


def counted(drill: Drill, workflow: str) -> Counter[str]:
    """Count the statuses of a workflow's subjobs one by one."""
    row = drill.store.workflow(workflow)
    assert row is not None
    return Counter(subjob.status for subjob in drill.store.subjobs(row.id, "", 10_000))


def test_counts_follow_every_change_of_status(drill: Drill) -> None:
    draw = random.Random(4)
    for step in range(400):
        key = SubjobKey(f"w-{draw.randint(1, 2)}", f"s-{draw.randint(1, 8)}")
        attempt, fence = draw.randint(1, 3), draw.randint(1, 3)
        commands: list[m.Command] = [
            m.Enroll(),
            acquire(attempt, plan=PLAN),
            m.Renew(fence, nonce(attempt), draw.choice([None, "saved"])),
            m.Enter(fence, nonce(attempt), "run"),
            m.Complete(fence, nonce(attempt), "run"),
            m.Exited(fence, nonce(attempt), 0),
            m.Abandon(fence, nonce(attempt)),
            m.Cancel("not needed"),
            m.Enroll(f"ap1#{step}.0#1795229999", force=True),
        ]
        # Several of one subjob in one batch, which may pass through statuses that nobody sees.
        wanted = [draw.choice(commands) for _ in range(draw.randint(1, 3))]
        drill.ask_all(*(drill.pending(command, key) for command in wanted))
        drill.now += draw.choice([0, 1, 130])
        if step % 50 == 49:
            drill.restart(after_seconds=1)
            for workflow in ("w-1", "w-2"):
                row = drill.store.workflow(workflow)
                assert row is not None
                assert drill.store.counts(row.id) == counted(drill, workflow)
    assert len(counted(drill, "w-1")) > 2, "the drill was too tame"


def test_no_fence_is_issued_at_or_below_the_floor_and_no_holder_is_disturbed(
    drill: Drill, kind: StoreKind, tmp_path: Path
) -> None:
    held, abandoned = SubjobKey("run7", "held"), SubjobKey("run7", "abandoned")
    assert drill.acquire(held).fence == drill.acquire(abandoned).fence == 1
    drill.ask(m.Abandon(1, nonce(1)), abandoned)
    drill.stop()
    kind.tamper(tmp_path, "UPDATE fence_floor SET fence = 41")
    drill.start()
    assert drill.acquire(KEY).fence == 42
    assert drill.ask(m.Renew(1, nonce(1)), held).order == "continue"
    assert drill.acquire(held).fence == 1, "the same nonce gets the same grant again"
    assert drill.acquire(abandoned, number=2).fence == 42
    late = drill.ask(m.Renew(1, nonce(1)), abandoned)
    assert isinstance(late, m.Rejection) and late.code == "superseded-attempt"
    drill.ask(m.Abandon(42, nonce(1)))
    assert drill.acquire(KEY, number=2).fence == 43, "from there on it goes up by one"


# ------------------------------------------------------------ trimming

DAYS = 86400.0


def trim(drill: Drill, workflow: str, older_than_days: float = 30) -> Trimmed:
    """Take a step of letting a workflow go."""
    row = drill.store.workflow(workflow)
    assert row is not None
    wanted = Trim(row.id, workflow, drill.now - older_than_days * DAYS)
    trimmed = drill.ask_all(PendingRequest(None, wanted, "admin", drill.future()))[0]
    assert isinstance(trimmed, Trimmed), trimmed
    return trimmed


def closed(drill: Drill, workflow: str, *names: str) -> None:
    """Make subjobs that are complete under fence 2."""
    for name in names:
        key = SubjobKey(workflow, name)
        drill.acquire(key, plan=PLAN, global_job_id=f"ap1#{workflow}.{name}#1")
        drill.ask(m.Abandon(1, nonce(1)), key)
        drill.acquire(key, number=2, global_job_id=f"ap1#{workflow}.{name}#1")
        drill.ask(m.Enter(2, nonce(2), "run"), key)
        assert drill.ask(m.Complete(2, nonce(2), "run"), key).completed_fence == 2


def test_what_has_been_closed_for_long_goes_with_all_that_belongs_to_it(drill: Drill) -> None:
    closed(drill, "old", "a", "b", "c")
    drill.now += 31 * DAYS
    closed(drill, "new", "a")
    assert trim(drill, "new") == Trimmed(0, 0, is_done=True)
    trimmed = trim(drill, "old")
    assert (trimmed.subjobs, trimmed.is_done) == (3, True) and trimmed.events >= 15
    for key in (SubjobKey("old", "a"), SubjobKey("old", "c")):
        assert drill.store.subjob(key) is None
    assert drill.store.subjobs_known_as("ap1#old.a#1", 10) == []
    assert drill.store.subjobs_known_as("a", 10) != [], "of the other workflow"
    row = drill.store.workflow("old")
    assert row is not None and drill.store.counts(row.id) == {}
    assert trim(drill, "old") == Trimmed(0, 0, is_done=True)
    # Whoever comes back is new, and above whatever was deleted.
    late = drill.ask(m.Renew(2, nonce(2)), SubjobKey("old", "a"))
    assert isinstance(late, m.Rejection) and late.code == "unknown-subjob"
    assert drill.acquire(SubjobKey("old", "a")).fence == 3
    drill.restart(after_seconds=1)
    assert drill.acquire(SubjobKey("old", "b")).fence == 3
    late = drill.ask(m.Renew(2, nonce(2)), SubjobKey("old", "b"))
    assert isinstance(late, m.Rejection) and late.code in ("stale-fence", "superseded-attempt")


def test_a_workflow_with_anything_open_or_reopened_stays_whole(drill: Drill) -> None:
    closed(drill, "held", "a")
    drill.acquire(SubjobKey("held", "b"))
    closed(drill, "reopened", "a", "b")
    drill.now += 31 * DAYS
    drill.ask(m.Enroll("ap1#9.0#2", force=True), SubjobKey("reopened", "a"))
    for workflow in ("held", "reopened"):
        assert trim(drill, workflow) == Trimmed(0, 0, is_done=True)
        assert drill.store.subjob(SubjobKey(workflow, "b")) is not None
    drill.ask(m.Cancel("no more"), SubjobKey("reopened", "a"))
    assert trim(drill, "reopened").subjobs == 0, "it was closed a moment ago"


def test_what_is_reopened_in_the_same_batch_is_not_trimmed(drill: Drill) -> None:
    closed(drill, "w", "a", "b")
    drill.now += 31 * DAYS
    row = drill.store.workflow("w")
    assert row is not None
    step = Trim(row.id, "w", drill.now - DAYS)
    reopen = drill.pending(m.Enroll("ap1#9.0#2", force=True), SubjobKey("w", "a"))
    _, trimmed, granted = drill.ask_all(
        reopen,
        PendingRequest(None, step, "admin", drill.future()),
        drill.pending(acquire(3, global_job_id="ap1#9.0#2"), SubjobKey("w", "a")),
    )
    assert isinstance(trimmed, Trimmed) and isinstance(granted, m.Grant)
    assert granted.fence == 3
    stored = drill.store.subjob(SubjobKey("w", "a"))
    assert stored is not None and stored.status == "active"
    seqs = [event.seq for event in drill.history(SubjobKey("w", "a"))]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_command_behind_a_trim_in_one_batch_brings_nothing_back(drill: Drill) -> None:
    closed(drill, "w", "a", "b")
    drill.restart(after_seconds=31 * DAYS)
    row, key = drill.store.workflow("w"), SubjobKey("w", "a")
    assert row is not None
    step = Trim(row.id, "w", drill.now - DAYS)
    forced = drill.pending(m.Enroll("ap1#9.0#2", force=True), key)
    trimmed, answer = drill.ask_all(PendingRequest(None, step, "admin", drill.future()), forced)
    assert isinstance(trimmed, Trimmed) and trimmed.subjobs >= 1
    stored = drill.store.subjob(key)
    if stored is None:
        assert isinstance(answer, m.Rejection) and answer.code == "overloaded"
        assert drill.acquire(key).fence == 3
    else:
        assert isinstance(answer, m.Enrolled), "it was left out, since somebody asked for it"
    seqs = [event.seq for event in drill.history(key)]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_large_workflow_goes_in_steps_and_others_are_answered_between(drill: Drill) -> None:
    names = [f"s-{number}" for number in range(450)]
    drill.ask_all(*(drill.pending(acquire(), SubjobKey("large", name)) for name in names))
    drill.ask_all(*(drill.pending(m.Cancel(), SubjobKey("large", name)) for name in names))
    drill.now += 31 * DAYS
    steps: list[Trimmed] = []
    while not steps or not steps[-1].is_done:
        steps.append(trim(drill, "large"))
        assert drill.acquire(SubjobKey("other", f"s-{len(steps)}")).fence == 2
    assert [step.subjobs for step in steps] == [200, 200, 50]
    assert trim(drill, "large").subjobs == 0


@only_exclusive
def test_the_first_renewal_after_a_start_is_on_the_disk_before_its_answer(
    drill: Drill, kind: StoreKind
) -> None:
    """If it were lost, a next start would take its holder for one that is gone."""
    drill.acquire()
    drill.restart(after_seconds=30)
    drill.now += 30
    assert drill.ask(m.Renew(1, nonce(1))) == m.Renewal(120, "continue")
    assert drill.state().deadline_at == drill.now + 120 and not drill.states.unflushed
    heard_at = drill.now
    drill.now += 0.1
    drill.ask(m.Renew(1, nonce(1)))
    assert drill.state().deadline_at == heard_at + 120, "further ones may be lost in a crash"
    assert drill.states.unflushed
