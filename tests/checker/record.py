"""What the clients of a run saw: every request that was put on a wire, and its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey


@dataclass(eq=False)
class Delivery:
    """One request on one connection; a client that repeats itself makes several.

    Instants are seconds on the monotonic clock of the clients. The server acted on it, if at all,
    after `sent_at`, and before `answered_at` when there is an answer.
    """

    key: SubjobKey
    #: None for a GET of the subjob.
    command: m.Command | None
    request_id: str
    sent_at: float
    answered_at: float = math.inf
    status: int | None = None
    document: Any = None

    @property
    def is_answered(self) -> bool:
        """Whether an answer came back whole."""
        return self.status is not None

    def __str__(self) -> str:
        what = "GET" if self.command is None else f"{self.command}"
        return (
            f"{self.request_id} {what}\n    sent {self.sent_at:.3f}, answered"
            f" {self.answered_at:.3f}: {self.status} {self.document}"
        )


class Outage(NamedTuple):
    """A time without any server, between two runs of it."""

    #: Before it was killed, and when it had surely gone: it may have lived on a little.
    down_at: float
    gone_at: float
    #: When the next server's process was started; it called its clock after that.
    started_at: float


@dataclass
class Recording:
    """All that is known of one subjob after a run."""

    key: SubjobKey
    deliveries: list[Delivery]
    #: `GET …/history`, all pages.
    history: list[dict[str, Any]]
    #: `GET` of the subjob at the very end.
    final: dict[str, Any] | None
