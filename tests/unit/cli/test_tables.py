"""Tables at the width of a terminal: whole, folded, or each row a block."""

from __future__ import annotations

import io

import pytest

from htlease_cli.tables import Table, block_lines, folded_widths, plain_lines, width_of

WIDE = Table(
    ("ATTEMPT", "ATTEMPT ID", "HOST", "BECAUSE", "GRANTED", "END"),
    [
        (
            "1",
            "ap1.example.org#1234.0#1764590000@1.1",
            "slot1_1@worker-17.example.org",
            "the lease was free",
            "2026-11-21 03:45:12",
            "",
        )
    ],
)


def test_what_fits_is_as_in_a_pipe() -> None:
    assert plain_lines(WIDE, 200) == plain_lines(WIDE)


@pytest.mark.parametrize("width", [90, 100, 120])
def test_what_is_a_little_too_wide_is_folded_and_nothing_is_lost(width: int) -> None:
    lines = plain_lines(WIDE, width)
    assert max(map(len, lines)) <= width
    assert sorted("".join(lines).replace(" ", "")) == sorted(
        "".join(plain_lines(WIDE)).replace(" ", "")
    )


@pytest.mark.parametrize("width", [30, 40, 60])
def test_what_is_far_too_wide_is_a_block_for_each_row(width: int) -> None:
    table = Table(WIDE.columns, [*WIDE.rows, *WIDE.rows])
    assert folded_widths(table, width) is None
    lines = block_lines(table, width)
    assert max(map(len, lines)) <= width
    assert lines.count("") == 1
    assert "ATTEMPT     1" in lines
    assert not any(line.startswith("END") for line in lines)
    whole = "".join(line[12:] for line in lines)
    assert whole.count("ap1.example.org#1234.0#1764590000@1.1") == 2


@pytest.mark.parametrize(
    ("columns", "width"), [("80", 80), ("", None), ("0", None), ("-3", None), ("x", None)]
)
def test_a_pipe_has_the_width_that_columns_says(columns: str, width: int | None) -> None:
    assert width_of(io.StringIO(), {"COLUMNS": columns}) == width
