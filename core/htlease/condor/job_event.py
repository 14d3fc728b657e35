"""An event of a job's event log, as HTCondor's bindings read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobEvent:
    """An event of a job's event log."""

    job: str
    #: As in the event log, e.g. 1 for "job executing".
    number: int
    name: str
    #: Seconds since 1970.
    at: float
    fields: Mapping[str, Any]
