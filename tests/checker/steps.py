"""What the checker finds, and the states that it finds it by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from htlease.rules import messages as m
from htlease.rules.state import SubjobState


class Finding(NamedTuple):
    """Something that the rules do not explain."""

    #: rules, order, answers, reads, holders or state.
    kind: str
    text: str

    def __str__(self) -> str:
        return f"[{self.kind}] {self.text}"


class Step(NamedTuple):
    """The subjob after one request that left events."""

    state: SubjobState
    at: float
    #: Request ID -> the command accepted under it and its answer, of those still remembered.
    remembered: Mapping[str, tuple[m.Command, m.Accepted]]
    request_id: str = ""
    #: What the request was answered, as a document without durations.
    answer: Any = None
    status: int = 0
    why: str | None = None
    #: Between these instants the request was done.
    after: float = -math.inf
    before: float = math.inf
