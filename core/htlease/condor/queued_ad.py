"""What is read off a job's ad in the queue or the history, whoever asks; pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # DAG scripts start by the thousand, and need none of it
    from collections.abc import Mapping
    from typing import Any

#: JobStatus. Source: the manual's list of job ClassAd attributes.
IDLE, RUNNING, REMOVED, COMPLETED, HELD, TRANSFERRING_OUTPUT, SUSPENDED = range(1, 8)


def job_number(ad: Mapping[str, Any]) -> str:
    """Return cluster and process, e.g. `12.0`."""
    return f"{ad['ClusterId']}.{ad['ProcId']}"


def integer(ad: Mapping[str, Any], name: str) -> int | None:
    """Return an attribute that is an integer, or None."""
    value = ad.get(name)
    return value if type(value) is int else None


def count(ad: Mapping[str, Any], name: str) -> int | None:
    """Return an attribute that is an integer and not negative, or None."""
    value = integer(ad, name)
    return None if value is None or value < 0 else value
