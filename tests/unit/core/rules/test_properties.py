"""What holds for any sequence of commands, sensible or not."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.rules.world import STAGED, nonce

from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.attempt import Evidence, Order, Place
from htlease.rules.plan import PhaseSpec, Plan, phases_left
from htlease.rules.profiles import plan_of
from htlease.rules.state import CLOSED, SubjobState, apply

counts = st.none() | st.integers(0, 4)
evidences = st.builds(Evidence, counts, counts, counts, counts)
names = st.sampled_from(["a", "b", "c"])
fences = st.integers(0, 5)
gjids = st.sampled_from([None, "ap1#1.0#1", "ap1#2.0#2"])
slots = st.sampled_from([Place(), Place("ep1", "slot1", "<1>#1"), Place("ep1", "slot2", "<1>#1")])
plans = st.sampled_from(
    [
        None,
        STAGED,
        dataclasses.replace(STAGED, takeover="immediate"),
        Plan((PhaseSpec("stage-in"), PhaseSpec("compute"))),
        plan_of("cts:kbase_htcondor_subjob"),
    ]
)
phase_names = st.sampled_from(
    ["stage-in", "compute", "stage-out", "run", "job_submitting", "job_submitted", "error"]
)


def fenced(kind: type, *rest: st.SearchStrategy[object]) -> st.SearchStrategy[m.Command]:
    return st.builds(kind, fences, names.map(nonce), *rest)


commands = st.one_of(
    st.builds(m.Enroll, gjids, st.none(), st.just({}), plans, st.booleans()),
    *[
        st.builds(
            m.Acquire,
            names.map(nonce),
            st.sampled_from(m.KINDS),
            evidences,
            slots,
            gjids,
            st.none(),
            st.sampled_from([10.0, 120.0]),
            plans,
        )
    ]
    * 3,
    fenced(m.Renew, st.none() | st.just("details")),
    *[fenced(m.Enter, phase_names), fenced(m.Complete, phase_names)] * 2,
    fenced(m.Fail, phase_names),
    fenced(m.Exited, st.integers(0, 255)),
    fenced(m.Abandon),
    fenced(m.Commit),
    fenced(m.Settle, st.sampled_from(m.OUTCOMES)),
    st.builds(
        m.Ended, st.just("ap1#1.0#1"), st.none() | st.integers(0, 3), st.none() | st.integers(0, 3)
    ),
    st.builds(m.Observed, st.just("ap1#1.0#1"), st.sampled_from(m.OBSERVATIONS)),
    st.builds(m.Cancel),
)
steps = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 60.0, 121.0]), commands), max_size=25)


@settings(max_examples=400, deadline=None)
@given(steps)
def test_any_sequence_of_commands_keeps_the_promises(
    sequence: list[tuple[float, m.Command]],
) -> None:
    state, now = SubjobState(), 1000.0
    history: list[tuple[float, m.Event]] = []
    for seconds, command in sequence:
        now += seconds
        decision = decide(state, command, now)
        after = apply(state, decision.events, now)
        check_step(state, command, decision, after, now)
        history += [(now, event) for event in decision.events]
        state = after
    folded = SubjobState()
    for at, event in history:
        folded = apply(folded, (event,), at)
    assert folded == state, "the state is what the history says"
    assert "nonce-of" not in repr((state, history)), "a nonce is its holder's secret"


def check_step(
    before: SubjobState, command: m.Command, decision: m.Decision, after: SubjobState, now: float
) -> None:
    granted = [event for event in decision.events if isinstance(event, m.LeaseAcquired)]
    assert after.fence == before.fence + len(granted) <= before.fence + 1
    for event in granted:
        if before.is_live(now):
            assert event.why in ("same-slot", "immediate")
            assert isinstance(command, m.Acquire)
        assert event.epoch >= before.granted_epoch
    if isinstance(decision, m.Rejection) and isinstance(command, m.FencedCommand):
        assert dataclasses.replace(after, refusals=before.refusals) == before
    if isinstance(command, m.FencedCommand) and decision.events:
        if isinstance(decision, m.Accepted):
            assert before.holder is not None
            assert command.fence == before.fence
            assert m.nonce_digest(command.nonce) == before.holder.nonce_digest
    if before.status in CLOSED and after.status not in CLOSED:
        reopened = [e for e in decision.events if isinstance(e, m.SubmissionEnrolled)]
        assert reopened and reopened[0].reopened == before.outcome
        is_forced = isinstance(command, m.Enroll) and command.force
        assert before.outcome == "failed" or is_forced


@given(evidences, evidences)
def test_order_of_two_is_the_opposite_seen_from_the_other_side(a: Evidence, b: Evidence) -> None:
    opposite = {Order.NEWER: Order.OLDER, Order.OLDER: Order.NEWER}
    order = a.compared_to(b)
    assert b.compared_to(a) is opposite.get(order, order)


@given(
    st.lists(st.sampled_from(["redo", "resume", "once"]), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_a_new_attempt_runs_what_is_not_done_for_good(
    restarts: list[str], done: list[bool]
) -> None:
    plan = Plan(tuple(PhaseSpec(f"p{i}", restart) for i, restart in enumerate(restarts)))
    records = {
        spec.name: m.PhaseRecord(spec.name, completed_fence=1)
        for spec, is_done in zip(plan.phases, done, strict=False)
        if is_done
    }
    left = phases_left(plan, records)
    for index, spec in enumerate(plan.phases):
        completed = spec.name in records
        if completed and spec.restart == "once":
            assert spec.name not in left
        elif not completed or index == len(plan.phases) - 1:
            assert spec.name in left
        else:
            later = {phase.name for phase in plan.phases[index + 1 :]}
            assert (spec.name in left) == bool(later & set(left))
    assert list(left) == [spec.name for spec in plan.phases if spec.name in left]
