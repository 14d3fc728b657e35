"""Which requests are worth a line in the log, and what it says of them."""

from __future__ import annotations

import logging

from htlease.rules import messages as m
from htlease_server.engine.batch import PendingRequest
from htlease_server.logs import is_noted, note
from htlease_server.models.request_models import CommandRequest

#: An attempt that HTCondor should have ended is still at work somewhere.
_FENCED = ("superseded-attempt", "stale-fence")


def note_command(
    call: str, pending: PendingRequest, outcome: object, duration_seconds: float
) -> None:
    """Note a command that was answered: at info what people ask about, the rest at debug."""
    command_request = pending.sent
    assert isinstance(command_request, CommandRequest)
    refused = outcome if isinstance(outcome, m.Rejection) else None
    is_fenced = refused is not None and refused.code in _FENCED
    level = (
        logging.INFO
        if is_fenced or isinstance(command_request.command, m.Cancel)
        else logging.DEBUG
    )
    if not is_noted(level):
        return
    note(
        level,
        "an attempt was shut out" if is_fenced else f"{call} {'refused' if refused else 'done'}",
        code=refused.code if refused else "ok",
        call=call,
        subjob=str(pending.key),
        request_id=command_request.request_id,
        attempt_id=_attempt_id(outcome),
        fence=getattr(command_request.command, "fence", None),
        actor=pending.actor,
        via=pending.via,
        duration_seconds=round(duration_seconds, 6),
    )


def _attempt_id(outcome: object) -> str | None:
    if isinstance(outcome, m.Grant):
        return outcome.attempt_id
    if isinstance(outcome, m.Rejection):
        for event in outcome.events:
            if isinstance(event, m.AttemptRefused):
                return event.attempt_id
    return None
