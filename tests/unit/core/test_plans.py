"""Plans by themselves, and what the statuses of subjobs make of a workflow."""

from __future__ import annotations

import pytest

from htlease.errors import InvalidField
from htlease.plan import (
    PHASES_MAX,
    TTL_MAX_SECONDS,
    PhaseSpec,
    Plan,
    PlanFile,
    check_ttl,
    is_wall_time,
    seconds_from,
)
from htlease.rollup import EMPTY, PARTIAL, ROLLUP_ORDER, rollup


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


def test_a_plan_has_phases_of_different_names_and_not_too_many() -> None:
    specs = [PhaseSpec(f"p{number}") for number in range(PHASES_MAX + 1)]
    Plan(tuple(specs[:-1]))
    for phases in ((), tuple(specs), (specs[0], specs[1], specs[0])):
        with pytest.raises(InvalidField) as refused:
            Plan(phases)
        assert refused.value.field == "plan.phases"


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


def test_a_workflow_is_what_its_first_status_says() -> None:
    assert rollup({}) == EMPTY and rollup({"active": 0}) == EMPTY
    for position, (status, state) in enumerate(ROLLUP_ORDER):
        later = {name: 3 for name, _ in ROLLUP_ORDER[position + 1 :]}
        expected = PARTIAL if status == "cancelled" else state
        assert rollup({status: 1, **later}) == expected
        assert rollup({status: 1}) == state
