"""What POST makes of a node, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from htlease_dagman.scripts.post_decision import Standing, judge, standing_of

OPEN, UNSEEN = Standing("j", False, True, None, ()), Standing("t", False, False, None, ())
SEVERAL = Standing("t", False, False, None, (), jobs=5)
PLAIN = Standing("j", False, True, None, ("run",), is_plain=True)
COMPLETE, CANCELLED = (
    Standing("j", False, True, "complete", ()),
    Standing("j", False, True, "cancelled", ()),
)


@pytest.mark.parametrize(
    ("standing", "missing", "returned", "chained", "close", "exit"),
    [
        # nothing of the user's
        (OPEN, (), 0, None, "commit", 0),
        (OPEN, ("run",), 0, None, "failed", 1),
        (OPEN, (), 3, None, "failed", 3),
        (OPEN, (), -15, None, "failed", 143),
        (OPEN, (), -1001, None, "failed", 1),
        (UNSEEN, ("run",), 0, None, "complete", 0),
        (UNSEEN, ("run",), 3, None, "failed", 3),
        # several jobs
        (SEVERAL, (), 0, None, "complete", 0),
        (SEVERAL, (), 76, None, "complete", 0),
        (SEVERAL, ("A.3",), 0, None, "failed", 1),
        (SEVERAL, (), 3, None, "failed", 3),
        (SEVERAL, ("A.3",), 76, None, "failed", 76),
        # one job without phases of its own
        (PLAIN, ("run",), 0, None, "commit", 0),
        (PLAIN, ("run",), 3, None, "failed", 3),
        (PLAIN, ("run",), 76, None, "failed", 76),
        (PLAIN, ("run",), 0, 4, "failed", 4),
        # superseded: the phases say how it ended
        (OPEN, (), 76, None, "commit", 0),
        (OPEN, ("run",), 76, None, "failed", 76),
        # closed before
        (COMPLETE, (), 0, None, None, 0),
        (COMPLETE, (), 3, None, None, 0),
        (CANCELLED, (), 0, None, None, 1),
        # the user's script
        (OPEN, (), 0, 0, "commit", 0),
        (OPEN, (), 0, 4, "failed", 4),
        (OPEN, ("run",), 3, 0, "complete", 0),
        (OPEN, ("run",), 0, 0, "failed", 1),
        (OPEN, ("run",), 3, 4, "failed", 4),
        (COMPLETE, (), 0, 4, None, 4),
        (COMPLETE, (), 0, 0, None, 0),
        (CANCELLED, (), 0, 0, None, 1),
    ],
)
def test_a_nodes_end(
    standing: Standing,
    missing: tuple[str, ...],
    returned: int,
    chained: int | None,
    close: str | None,
    exit: int,
) -> None:
    verdict = judge(standing, missing, returned, chained)
    assert (verdict.close, verdict.exit) == (close, exit)


def test_jobs_of_their_own_names_are_not_called_unseen() -> None:
    assert judge(SEVERAL, (), 0, None).reason == "all 5 jobs are complete"
    assert "A.3" in judge(SEVERAL, ("A.3",), 0, None).reason


def test_exit_0_of_a_job_without_phases_shows_its_one_to_be_complete() -> None:
    assert judge(PLAIN, ("run",), 0, None).shown_complete == ("run",)
    assert judge(PLAIN, (), 0, None).shown_complete == ()


@pytest.mark.parametrize(
    ("changes", "is_plain"),
    [
        ({}, True),
        ({"name": "main"}, False),
        ({"restart": "once"}, False),
        ({"exclusive": 1}, False),
    ],
)
def test_a_job_without_phases_has_the_one_that_it_is_given(
    changes: dict[str, Any], is_plain: bool
) -> None:
    found = document((1, "d/0", 0), (2, "j1", None), jobs=(2,))
    phase = {"name": "run", "restart": "resume", "exclusive": False, "completed_at": None}
    found["phases"] = [{**phase, **changes}]
    assert standing_of(found, "d/0").is_plain is is_plain
    found["phases"].append({**phase, "name": "b"})
    assert not standing_of(found, "d/0").is_plain


def document(*submissions: tuple[int, str, int | None], jobs: tuple[int, ...] = ()) -> Any:
    return {
        "submissions": [
            {"epoch": epoch, "global_job_id": name, "retry": retry, "links": {}}
            for epoch, name, retry in submissions
        ],
        "attempts": [{"kind": "job", "epoch": epoch} for epoch in jobs],
        "outcome": None,
        "plan": {"profile": None},
        "phases": [
            {"name": "a", "restart": "redo", "exclusive": False, "completed_at": "x"},
            {"name": "b", "restart": "redo", "exclusive": False, "completed_at": None},
        ],
    }


def test_the_job_that_followed_a_try_is_the_trys() -> None:
    standing = standing_of(document((1, "d/0", 0), (2, "j1", None), jobs=(2,)), "d/0")
    assert standing == Standing("j1", False, True, None, ("b",))


def test_a_routed_copy_acts_for_the_try_too() -> None:
    found = document((1, "d/0", 0), (2, "j1", None), (3, "copy", None), jobs=(3,))
    assert standing_of(found, "d/0") == Standing("copy", False, True, None, ("b",))


def test_a_try_without_a_job_acts_in_its_own_name() -> None:
    found = document((1, "d/0", 0), (2, "j1", None), (3, "d/1", 1), jobs=(2,))
    assert standing_of(found, "d/1") == Standing("d/1", False, False, None, ("b",))


def test_a_later_try_overtakes() -> None:
    found = document((1, "d/0", 0), (2, "j1", None), (3, "e/0", 0), (4, "j2", None), jobs=(2, 4))
    assert standing_of(found, "d/0") == Standing("j1", True, True, None, ("b",))
    assert standing_of(found, "e/0") == Standing("j2", False, True, None, ("b",))


def test_a_try_that_was_never_announced_has_seen_nothing() -> None:
    found = document((1, "j1", None), jobs=(1,))
    assert standing_of(found, "d/0") == Standing(
        "d/0", False, True, None, ("b",), is_announced=False
    )


def test_where_a_state_machine_says_how_far_it_is_no_phase_is_missing() -> None:
    found = document((1, "d/0", 0), (2, "j1", None), jobs=(2,))
    found["plan"]["profile"] = "cts:stage-in"
    assert standing_of(found, "d/0").missing == ()
