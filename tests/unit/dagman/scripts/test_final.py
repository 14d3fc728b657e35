"""When a DAG that DAGMan calls good is none."""

from __future__ import annotations

import pytest

from htlease_dagman.scripts.final import nodes_left


@pytest.mark.parametrize(
    ("status", "done", "known", "count", "left"),
    [
        ("0", "0", "4", 2, 2),
        ("1", "1", "4", 3, 2),  # PROVISIONER, two jobs, FINAL on 23.9.6
        ("0", "2", "4", 2, 0),
        ("0", "3", "4", 2, 0),  # with nodes that DAGMan has made itself
        ("0", "1", "1", 5, 0),  # nodes were taken out of the DAG since
        ("2", "0", "4", 2, 0),  # a failed one says so itself
        ("0", "0", "4", 0, 0),  # instrumented by an earlier version
        ("0", "$DONE_COUNT", "4", 2, 0),
    ],
)
def test_nodes_that_never_ran_are_counted(
    status: str, done: str, known: str, count: int, left: int
) -> None:
    macros = {"DAG_STATUS": status, "DONE_COUNT": done, "NODE_COUNT": known}
    assert nodes_left(macros, count) == left


def test_an_older_script_line_says_nothing_of_that() -> None:
    assert nodes_left({"DAG_STATUS": "0"}, 2) == 0
