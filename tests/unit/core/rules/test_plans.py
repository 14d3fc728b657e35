"""Plans by themselves, and what the statuses of subjobs make of a workflow."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from htlease.errors import InvalidField
from htlease.rules.plan import (
    ON_WALL_TIME,
    PHASES_MAX,
    RESTARTS,
    TAKEOVERS,
    TTL_MAX_SECONDS,
    TTL_MIN_SECONDS,
    PhaseSpec,
    Plan,
    PlanFile,
    check_ttl,
    is_done,
    is_wall_time,
    phases_left,
    seconds_from,
)
from htlease.rules.rollup import EMPTY, PARTIAL, ROLLUP_ORDER, rollup


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        (0, 0.0),
        ("1e3", 1000.0),
        ("-1", None),
        ("inf", None),
        ("nan", None),
        ("x", None),
    ],
)
def test_seconds_are_a_number_that_is_not_negative(text: object, seconds: float | None) -> None:
    assert seconds_from(text) == seconds


@pytest.mark.parametrize(
    ("reason", "is_one"),
    [
        ("walltime", True),
        ("walltime: 60 s", True),
        ("x: walltime", False),
        ("", False),
        (None, False),
    ],
)
def test_the_word_before_the_colon_says_that_a_limit_was_reached(
    reason: str | None, is_one: bool
) -> None:
    assert is_wall_time(reason) is is_one


@pytest.mark.parametrize("ttl_seconds", [1, 1.0, 120, TTL_MAX_SECONDS])
def test_a_ttl_within_its_limits_is_a_float(ttl_seconds: float) -> None:
    assert check_ttl(ttl_seconds) == ttl_seconds
    assert isinstance(check_ttl(ttl_seconds), float)


@pytest.mark.parametrize("ttl_seconds", [0.99, TTL_MAX_SECONDS + 1, -1, True, "120", None])
def test_any_other_ttl_is_refused_by_name(ttl_seconds: object) -> None:
    with pytest.raises(InvalidField) as refused:
        check_ttl(ttl_seconds)  # type: ignore[arg-type]
    assert refused.value.field == "ttl_seconds"
    assert f"{ttl_seconds}".removesuffix(".0") in refused.value.problem, "it says what was written"


@pytest.mark.parametrize("ttl_seconds", [0.5, TTL_MAX_SECONDS + 1])
def test_a_ttl_outside_its_limits_is_told_them(ttl_seconds: float) -> None:
    with pytest.raises(InvalidField) as refused:
        check_ttl(ttl_seconds)
    for limit in (TTL_MIN_SECONDS, TTL_MAX_SECONDS):
        assert f"{limit:g}" in refused.value.problem
    assert check_ttl(TTL_MIN_SECONDS) == TTL_MIN_SECONDS


def test_a_plan_has_phases_of_different_names_and_not_too_many() -> None:
    specs = [PhaseSpec(f"p{number}") for number in range(PHASES_MAX + 1)]
    Plan(tuple(specs[:-1]))
    for phases in ((), tuple(specs), (specs[0], specs[1], specs[0])):
        with pytest.raises(InvalidField) as refused:
            Plan(phases)
        assert refused.value.field == "plan.phases"
        assert refused.value.problem


def phase(**changes: object) -> PhaseSpec:
    return PhaseSpec(**{"name": "fetch", **changes})  # type: ignore[arg-type]


def plan(**changes: object) -> Plan:
    return Plan((PhaseSpec("fetch"),), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "changes", "field", "allowed"),
    [
        (phase, {"name": "a b"}, "phase.name", ()),
        (phase, {"restart": "never"}, "phase fetch: restart", RESTARTS),
        (phase, {"needs": ("tape", "a/b")}, "phase fetch: needs", ()),
        (plan, {"takeover": "sooner"}, "plan.takeover", TAKEOVERS),
        (plan, {"takeover": None}, "plan.takeover", TAKEOVERS),
        (plan, {"on_wall_time": "retry"}, "plan.on_wall_time", ON_WALL_TIME),
    ],
)
def test_what_a_plan_cannot_say_is_refused_by_name_with_what_it_can(
    make: type, changes: dict[str, object], field: str, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidField) as refused:
        make(**changes)
    assert refused.value.field == field
    problem = refused.value.problem
    assert all(word in problem for word in allowed)
    assert allowed == () or ", ".join(allowed) in problem
    wrong = next(iter(changes.values()))
    assert (repr(wrong) if isinstance(wrong, str) else "") in problem


def test_a_plan_may_say_all_that_is_listed() -> None:
    for restart in RESTARTS:
        assert phase(restart=restart, needs=("tape",)).restart == restart
    for takeover in TAKEOVERS:
        assert plan(takeover=takeover).takeover == takeover
    for word in (None, *ON_WALL_TIME):
        assert plan(on_wall_time=word).on_wall_time == word


def test_two_phases_of_one_name_are_refused_with_the_name() -> None:
    with pytest.raises(InvalidField, match="'b'"):
        Plan((PhaseSpec("a"), PhaseSpec("b"), PhaseSpec("c"), PhaseSpec("b")))


def test_a_phase_is_found_by_its_name() -> None:
    plan = Plan((PhaseSpec("a"), PhaseSpec("b", "once")))
    assert plan.phase("b") == PhaseSpec("b", "once")
    assert plan.phase("c") is None
    assert Plan.single() == Plan((PhaseSpec("run", "resume"),))
    assert Plan.single("x", "once") == Plan((PhaseSpec("x", "once"),))


@pytest.mark.parametrize(
    ("plan_says", "limit", "phase_limits", "after"),
    [
        (None, None, {}, None),
        (None, 60.0, {}, "next-attempt"),
        (None, None, {"run": 5.0}, "next-attempt"),
        ("hold", 60.0, {}, "hold"),
        ("fail", None, {}, "fail"),
    ],
)
def test_what_follows_a_limit_on_run_time(
    plan_says: str | None, limit: float | None, phase_limits: dict[str, float], after: str | None
) -> None:
    plan = Plan((PhaseSpec("run"),), on_wall_time=plan_says)
    assert PlanFile(plan, {}, None, limit, phase_limits).after_wall_time == after


@dataclass(frozen=True)
class Record:
    completed_fence: int | None


OWN = 7
_DONE = st.sampled_from([None, OWN, 3])
_PHASES = st.lists(st.tuples(st.sampled_from(RESTARTS), st.none() | _DONE), min_size=1, max_size=6)


@given(_PHASES, st.sampled_from([None, OWN]))
@example([("redo", 3), ("redo", None)], OWN)
@example([("resume", 3), ("once", 3)], OWN)
@example([("redo", OWN), ("redo", 3)], OWN)
@example([("once", 3), ("redo", 3), ("redo", None)], None)
def test_a_phase_is_left_when_its_work_is_not_there_for_what_still_has_to_run(
    rows: list[tuple[str, int | None]], holder: int | None
) -> None:
    """The rule of `phases_left`, told from the first phase to the last."""
    specs = [PhaseSpec(f"p{number}", restart) for number, (restart, _) in enumerate(rows)]
    records = {f"p{number}": Record(fence) for number, (_, fence) in enumerate(rows)}
    left = phases_left(Plan(tuple(specs)), records, holder)
    assert list(left) == sorted(left), "in the order of the plan"
    for number, (spec, (restart, fence)) in enumerate(zip(specs, rows, strict=True)):
        lasts = fence is not None and (restart == "once" or fence == holder)
        assert is_done(spec, records[spec.name], holder) is lasts
        later = {one.name for one in specs[number + 1 :]}
        if lasts:
            assert spec.name not in left
        elif fence is None or spec is specs[-1] or later & {*left}:
            assert spec.name in left
        else:
            assert spec.name not in left, "nobody needs what it would make"


def test_a_phase_without_a_record_is_left() -> None:
    two = Plan((PhaseSpec("a", "once"), PhaseSpec("b", "once")))
    assert phases_left(two, {}) == ("a", "b")
    assert phases_left(two, {"b": Record(None), "a": Record(1)}) == ("b",)
    assert is_done(two.phases[0], None, None) is False


def test_a_workflow_is_what_its_first_status_says() -> None:
    assert rollup({}) == EMPTY and rollup({"active": 0}) == EMPTY
    for position, (status, state) in enumerate(ROLLUP_ORDER):
        later = {name: 3 for name, _ in ROLLUP_ORDER[position + 1 :]}
        expected = PARTIAL if status == "cancelled" else state
        assert rollup({status: 1, **later}) == expected
        assert rollup({status: 1}) == state
