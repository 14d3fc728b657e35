"""What keeps a store of any size quick and its fences above all that it may have forgotten."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.contract.drill import KEY, Drill, acquire, nonce
from tests.contract.stores import StoreKind

from htlease import messages as m
from htlease.attempt import SubjobKey
from htlease.plan import PhaseSpec, Plan

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
        drill.ask_all(*(drill.waiting(command, key) for command in wanted))
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
