"""What passes between the payload's side of the wrapper and the thread that keeps its lease."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from htlease.errors import Refused
from htlease.rules import messages as m
from htlease_wrapper.exit_status import SUPERSEDED


class Verdict(enum.Enum):
    """What the state of the lease means for a running payload."""

    GO_ON = "go on"
    STAND_STILL = "stand still"
    END = "end"


@dataclass(frozen=True)
class Loss:
    """Why this attempt has to end."""

    text: str
    exit_code: int = SUPERSEDED
    #: The lease is still ours: give it up, so that whoever waits need not wait for its end.
    may_abandon: bool = False


class QueuedCommand:
    """A command on its way to the server."""

    def __init__(self, command: m.Command, meant_at: float | None = None) -> None:
        self.command = command
        #: By the wall clock: it may be sent much later.
        self.meant_at = meant_at
        self.answer: dict[str, Any] | None = None
        self.refused: Refused | None = None
        self.was_tried = False

    @property
    def is_answered(self) -> bool:
        """Tell whether the server answered it, one way or the other."""
        return self.answer is not None or self.refused is not None

    @property
    def blocked_by(self) -> Refused | None:
        """Return the refusal of a phase that a flag holds back, which costs no lease."""
        refused = self.refused
        return refused if refused is not None and refused.code == "blocked" else None
