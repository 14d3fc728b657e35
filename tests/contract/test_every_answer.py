"""No answer of a server, and no row of its store, changes unnoticed."""

from __future__ import annotations

from tests.contract.answers import RECORD, lines


def test_every_answer_is_as_recorded() -> None:
    """Written anew by `python -m tests.contract.answers`, where a change is meant."""
    recorded = RECORD.read_text().splitlines()
    for number, (now, before) in enumerate(zip(lines(), recorded, strict=True)):
        assert now == before, f"line {number + 1}"
