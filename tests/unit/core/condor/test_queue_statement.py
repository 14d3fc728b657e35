"""Queue statements are read as HTCondor reads them, or refused."""

from __future__ import annotations

import pytest

from htlease.condor.queue_statement import QueueStatement, check_one_queue, read_queue, split_item
from htlease.errors import InvalidField


@pytest.mark.parametrize(
    "text",
    [
        "queue\n",
        "Queue 3",
        "  queue 2 x from (\n  queue 1\n)\n",
        "queue f matching *.dat",
        "queue_size = 3\nqueue in (a b)",
        "queue = 3\nqueue",
    ],
)
def test_one_queue_statement_passes(text: str) -> None:
    check_one_queue(text, "job.sub")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("executable = a\n", "no queue statement"),
        ("queue\narguments = b\nqueue 2\n", "has 2 queue statements"),
        ("queue x in [1:3] (a b c)", "queues a slice"),
    ],
)
def test_what_the_bindings_would_queue_wrongly_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidField, match=f"job.sub: .*{message}"):
        check_one_queue(text, "job.sub")


@pytest.mark.parametrize(
    ("arguments", "count", "variables"),
    [
        ("", "1", ()),
        ("3", "3", ()),
        ("1 + $(n)", "1 + $(n)", ()),
        ("in (a b)", "1", ("Item",)),
        ("in(a b)", "1", ("Item",)),
        ("x in (a, b)", "1", ("x",)),
        ("2 x,y from (", "2", ("x", "y")),
        ("$(n) x, y from list.txt", "$(n)", ("x", "y")),
        ("FROM list.txt", "1", ("Item",)),
        ("f matching files *.dat", "1", ("f",)),
        ("in_dir from dirs.txt", "1", ("in_dir",)),
    ],
)
def test_count_and_variables_are_found(
    arguments: str, count: str, variables: tuple[str, ...]
) -> None:
    assert read_queue(arguments) == QueueStatement(count, variables)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("1, 2", ["1", "2"]),
        ("1 2", ["1", "2"]),
        (" 1 , 2 3,4 ", ["1", "2 3,4"]),
        ("1", ["1", ""]),
        ("a b\x1fc, d", ["a b", "c, d"]),
    ],
)
def test_the_last_variable_takes_the_rest_of_the_line(line: str, values: list[str]) -> None:
    assert list(split_item(line, ("x", "y")).values()) == values


def test_one_variable_takes_the_whole_line() -> None:
    assert split_item(" a b, c ", ("x",)) == {"x": "a b, c"}
