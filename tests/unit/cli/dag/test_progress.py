"""The bar, the counts, and why a node is where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from htlease.condor.hold_codes import OUR_SUBCODE
from htlease.condor.queued_ad import HELD, IDLE
from htlease_cli.dag.nodes import node_of, not_begun, row_of
from htlease_cli.dag.overview import Dagman, Overview
from htlease_cli.dag.progress import LEGEND, SIGNS, Standing, parts_of_bar, percent_done, state_of
from htlease_cli.dag.status import exit_code_of


@given(
    st.dictionaries(st.sampled_from(Standing), st.integers(0, 5000)),
    st.integers(12, 200),
)
@example(dict(zip(Standing, (50, 50, 50, 1, 1, 1, 1), strict=True)), 12)
def test_a_bar_fills_its_width_and_shows_whatever_there_is(
    counts: dict[Standing, int], columns: int
) -> None:
    parts = parts_of_bar(counts, columns)
    present = {standing for standing, count in counts.items() if count}
    assert {standing for standing, _ in parts} == present
    assert all(length >= 1 for _, length in parts)
    if present:
        assert sum(length for _, length in parts) == max(7, min(columns, 79) - 2)


def test_a_bar_is_in_proportion() -> None:
    counts = {Standing.DONE: 50, Standing.RUNNING: 25, Standing.NOT_READY: 25}
    assert parts_of_bar(counts, 42) == [
        (Standing.DONE, 20),
        (Standing.RUNNING, 10),
        (Standing.NOT_READY, 10),
    ]


def test_the_legend_explains_every_sign() -> None:
    for sign, _ in SIGNS.values():
        assert f"{sign} " in LEGEND


def test_only_all_is_a_hundred_percent() -> None:
    assert percent_done({Standing.DONE: 999, Standing.WAITING: 1}) == 99
    assert percent_done({Standing.DONE: 3}) == 100
    assert state_of({Standing.DONE: 999, Standing.WAITING: 1}) == "waiting"
    assert state_of({Standing.DONE: 3}) == "complete"


def phase(name: str, entered: int | None, completed: int | None) -> dict[str, Any]:
    """Return a phase that any later attempt would run again."""
    return {
        "name": name,
        "restart": "redo",
        "run": True,
        "entered_fence": entered,
        "completed_fence": completed,
    }


def subjob(**changes: Any) -> dict[str, Any]:
    """Return the document of a subjob whose first attempt computes."""
    document: dict[str, Any] = {
        "status": "active",
        "outcome": None,
        "phase": "compute",
        "attempt_number": 1,
        "host": "ep1.example.org",
        "fence": 4,
        "expires_in_seconds": 87.0,
        "recalled_by": None,
        "job_hold": None,
        "removed_jobs": [],
        "exit_code": None,
        "exit_signal": None,
        "details": None,
        "details_phase": None,
        "plan": {
            "phases": [
                {"name": "fetch", "needs": ["hpss"]},
                {"name": "compute", "needs": ["lustre"]},
            ]
        },
        "phases": [
            phase("fetch", 4, 4),
            phase("compute", 4, None),
        ],
        "submissions": [
            {"global_job_id": "ap1#12.0#1/1", "retry": 1, "at": "a"},
            {"global_job_id": "ap1#13.0#1", "retry": None, "at": "b"},
        ],
        "attempts": [
            {"kind": "job", "attempt_number": 1, "end": None, "reason": None},
        ],
        "closing": None,
    }
    return {**document, **changes}


def stands(job: Any = None, down: Any = None, **changes: Any) -> tuple[str, str]:
    node = node_of("B", "job", subjob(**changes), down or {}, job)
    return node.standing.value, node.why


def test_a_running_node_needs_no_explanation() -> None:
    node = node_of("B", "job", subjob(), {})
    assert row_of(node) == ("B", "running", "compute", "2", "1", "ep1", "87 s", "")


ABANDONED: dict[str, Any] = {
    "status": "abandoned",
    "expires_in_seconds": None,
    "attempts": [
        {
            "kind": "job",
            "attempt_number": 1,
            "end": "abandoned",
            "reason": "asked to end by SIGTERM",
        }
    ],
}
HOLD = {"by": "user", "reason": "disk full", "code": 1, "subcode": 0}


@pytest.mark.parametrize(
    ("changes", "standing", "why"),
    [
        ({"outcome": "complete"}, "done", ""),
        (
            {"outcome": "failed", "closing": {"by": "settled", "reason": "exit 5"}},
            "failed",
            "failed, it was settled on the access point: exit 5",
        ),
        ({"job_hold": HOLD}, "held", "held by its user: disk full (hold code 1.0)"),
        (
            {"status": "recalled", "recalled_by": "ap1#13.0#1@2.2"},
            "running",
            "ap1#13.0#1@2.2 waits for it",
        ),
        (
            {"details_phase": "transfer", "details": '{"state":"active","text":"3 of 9 files"}'},
            "transferring",
            "3 of 9 files",
        ),
        (
            {
                "details_phase": "transfer",
                "details": '{"state":"needs-action","action":"log in at Globus"}',
            },
            "held",
            "needs a person: log in at Globus",
        ),
        (
            {"attempts": [{"kind": "post", "attempt_number": 1, "end": None, "reason": None}]},
            "waiting",
            "POST is at work",
        ),
        ({"status": "lapsed"}, "waiting", "its lease has run out; a later attempt may go on"),
        (
            {"status": "exited", "exit_code": 0},
            "waiting",
            "payload ended (exit code 0); POST is to settle it",
        ),
        (ABANDONED, "waiting", "attempt 1: asked to end by SIGTERM"),
        (
            {**ABANDONED, "removed_jobs": ["ap1#13.0#1"]},
            "waiting",
            "its job was removed; submit the DAG again to go on",
        ),
        ({"status": "waiting", "attempts": []}, "waiting", "no attempt has begun"),
        (
            {
                "status": "abandoned",
                "attempts": [
                    {"kind": "pre", "end": "abandoned", "reason": "PRE will be called again: why"}
                ],
            },
            "waiting",
            "no attempt has begun; PRE will be called again: why",
        ),
    ],
)
def test_why_a_node_is_where_it_is(changes: dict[str, Any], standing: str, why: str) -> None:
    assert stands(**changes) == (standing, why)


GONE = "DAGMan ended with exit code 1; submit the DAG again"


@pytest.mark.parametrize(
    ("reason", "gone", "since", "standing"),
    [
        ("exit 5; retry 1 of 3 may follow", None, 0.0, "waiting"),
        ("exit 5; retry 1 of 3 may follow", None, float("inf"), "failed"),
        ("exit 5; retry 1 of 3 may follow", GONE, 0.0, "failed"),
        ("exit 5", None, 0.0, "failed"),
        (None, None, 0.0, "failed"),
    ],
)
def test_a_try_that_dagman_may_follow_with_another_is_not_the_end(
    reason: str | None, gone: str | None, since: float, standing: str
) -> None:
    closing = {"by": "settled", "reason": reason, "at": "2026-12-01T10:00:00Z"}
    document = subjob(outcome="failed", status="failed", closing=closing)
    node = node_of("B", "job", document, {}, None, gone, since)
    assert node.standing.value == standing


def test_what_waits_for_a_dagman_that_is_gone_says_so() -> None:
    assert not_begun("A", "job", True, GONE).why == GONE
    waits = subjob(status="waiting", attempts=[])
    assert node_of("B", "job", waits, {}, None, GONE).why == GONE
    removed = subjob(**ABANDONED, removed_jobs=["ap1#13.0#1"])
    assert node_of("B", "job", removed, {}, None, GONE).why.startswith("its job was removed")


def test_the_queue_knows_holds_better_than_the_last_report() -> None:
    idle = {"JobStatus": IDLE}
    assert stands(idle, job_hold=HOLD, **ABANDONED) == (
        "waiting",
        "in the queue, idle; asked to end by SIGTERM",
    )
    held = {
        "JobStatus": HELD,
        "HoldReason": "maintenance",
        "HoldReasonCode": 1,
        "HoldReasonSubCode": OUR_SUBCODE,
    }
    assert stands(held, **ABANDONED) == (
        "held",
        f"held by htlease: maintenance (hold code 1.{OUR_SUBCODE})",
    )


def test_a_flag_is_named_where_the_next_phase_waits_for_it() -> None:
    down = {"hpss": "tape robot", "lustre": None}
    assert stands(down=down)[0] == "running", "compute was entered before"
    assert stands(down=down, **ABANDONED) == (
        "waiting",
        "fetch needs hpss, which is down: tape robot",
    )
    between = [phase("fetch", 4, 4), phase("compute", None, None)]
    assert stands(down=down, phases=between) == ("waiting", "compute needs lustre, which is down")


def overview(*standings: Standing) -> Overview:
    nodes = (not_begun("A", "job", True),)
    made = tuple(
        nodes[0].__class__(f"N{number}", "job", standing)
        for number, standing in enumerate(standings)
    )
    return Overview("w", "w", made)


@pytest.mark.parametrize(
    ("standings", "code"),
    [
        ([Standing.DONE], 0),
        ([], 0),
        ([Standing.DONE, Standing.WAITING], 3),
        ([Standing.FAILED, Standing.RUNNING], 3),
        ([Standing.FAILED, Standing.NOT_READY], 4),
        ([Standing.HELD, Standing.DONE], 4),
    ],
)
def test_scripts_are_told_whether_to_wait(standings: list[Standing], code: int) -> None:
    assert exit_code_of([overview(*standings)]) == code


def test_what_has_failed_is_not_the_end_while_dagman_runs() -> None:
    failed = overview(Standing.FAILED, Standing.NOT_READY)
    for dagman, code in [
        (Dagman("12.0", True, "runs", True), 3),
        (Dagman("12.0", True, "is held: quota"), 4),
        (Dagman("12.0", False, "ended with exit code 1"), 4),
    ]:
        assert exit_code_of([replace(failed, dagman=dagman)]) == code
    held = replace(overview(Standing.HELD), dagman=Dagman("12.0", True, "runs", True))
    assert exit_code_of([held]) == 4


def test_a_dag_without_its_dagman_stands_still() -> None:
    ended = Dagman("12.0", False, "was removed: by ann")
    assert replace(overview(Standing.WAITING), dagman=ended).state == "stopped"
    assert replace(overview(Standing.FAILED), dagman=ended).state == "failed"
    assert overview(Standing.WAITING).state == "waiting"
