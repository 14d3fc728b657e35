"""Which requests are worth a line in the log, and what it says of them."""

from __future__ import annotations

import logging

from htlease.rules import messages as m
from htlease_server.engine.batch import Waiting
from htlease_server.logs import is_noted, note
from htlease_server.models.request_models import Sent

#: An attempt that HTCondor should have ended is still at work somewhere.
_FENCED = ("superseded-attempt", "stale-fence")


def note_command(call: str, waiting: Waiting, outcome: object, duration_seconds: float) -> None:
    """Note a command that was answered: at info what people ask about, the rest at debug."""
    sent = waiting.sent
    assert isinstance(sent, Sent)
    refused = outcome if isinstance(outcome, m.Rejection) else None
    is_fenced = refused is not None and refused.code in _FENCED
    level = logging.INFO if is_fenced or isinstance(sent.command, m.Cancel) else logging.DEBUG
    if not is_noted(level):
        return
    note(
        level,
        "an attempt was shut out" if is_fenced else f"{call} {'refused' if refused else 'done'}",
        code=refused.code if refused else "ok",
        call=call,
        subjob=str(waiting.key),
        request_id=sent.request_id,
        attempt_id=_attempt_id(outcome),
        fence=getattr(sent.command, "fence", None),
        actor=waiting.actor,
        via=waiting.via,
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
