"""What a document of a subjob shows, compared with the state that it should show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from htlease.rules import messages as m
from htlease.rules.state import SubjobState


def shows(status: int | None, document: Any, state: SubjobState, exists: bool) -> bool:
    """Tell whether an answer to a GET shows a state, or that there is no such subjob."""
    if not exists:
        return status == 404
    return status == 200 and facts_of(document) == facts(state)


def facts_of(document: Mapping[str, Any]) -> Any:
    """Return what a document says that does not depend on the time."""
    is_lapsed = document["status"] == "lapsed"
    names = (
        *("fence", "outcome", "epoch", "attempt_number", "attempt_id", "phase", "recalled_by"),
        *("exit_code", "exit_signal", "details", "details_phase"),
    )
    return {
        # Whether it lapsed is a matter of time.
        "status": ("recalled" if document["recalled_by"] else "active")
        if is_lapsed
        else document["status"],
        **{name: document[name] for name in names},
        "phases": {
            phase["name"]: {name: phase[name] for name in _PHASE_FACTS}
            for phase in document["phases"]
        },
    }


_PHASE_FACTS = (
    *("entries", "entered_fence", "completed_fence", "failed_fence", "reason", "exit_code"),
    "artifacts",
)


def facts(state: SubjobState) -> Any:
    """Return the same of a state."""
    records = {
        spec.name: state.phases.get(spec.name) or m.PhaseRecord(spec.name)
        for spec in (state.plan.phases if state.plan else ())
    }
    return {
        "status": state.status.value,
        "fence": state.fence,
        "outcome": state.outcome,
        "epoch": state.epoch,
        "attempt_number": state.attempt_number,
        "attempt_id": state.holder.attempt_id if state.holder else None,
        "phase": state.current_phase,
        "recalled_by": state.recalled_by,
        "exit_code": state.exit_code,
        "exit_signal": state.exit_signal,
        "details": state.details,
        "details_phase": state.details_phase,
        "phases": {
            name: {fact: getattr(record, fact) for fact in _PHASE_FACTS}
            for name, record in records.items()
        },
    }
