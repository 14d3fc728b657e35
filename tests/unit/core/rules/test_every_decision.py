"""No decision changes unnoticed: what the rules make of every command in every kind of state."""

from __future__ import annotations

from tests.unit.core.rules.decisions import RECORD, lines


def test_every_decision_is_as_recorded() -> None:
    """Written anew by `python -m tests.unit.core.rules.decisions`, where a change is meant."""
    state = ""
    recorded = RECORD.read_text().splitlines()
    for number, (now, before) in enumerate(zip(lines(), recorded, strict=True)):
        state = now if now.startswith("##") else state
        assert now == before, f"line {number + 1}, in state {state}"
