"""What one startd says of its slots, asked directly, and what a job's event log says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from htlease.condor.event_log import read_events, read_rotated
from htlease.condor.schedd import Plain, ScheddUnavailable, bindings
from htlease.errors import BadConfig
from htlease.rules.end_proof import LogEvent

_OF_A_SLOT = ("MyAddress", "GlobalJobId")


def read_slots(address: str) -> list[dict[str, Plain]]:
    """Return address and GlobalJobId of the slots of the startd at this very address.

    The collector is not asked: it forgets a startd that is cut off. A startd answers queries for
    its ads like a collector. Source: measured on 23.9.6 and 25.14.1. Raises ScheddUnavailable.
    """
    module = bindings()
    try:
        ads = module.Collector(address).query(
            module.AdTypes.Startd, "true", projection=list(_OF_A_SLOT)
        )
        return [
            {name: str(ad[name]) for name in _OF_A_SLOT if isinstance(ad.get(name), str)}
            for ad in ads
        ]
    except Exception as error:
        text = " ".join(str(error).split())
        raise ScheddUnavailable(f"the startd at {address} does not answer: {text}") from error


def read_job_log(paths: Sequence[str], job: str) -> list[list[LogEvent]]:
    """Return the events of a job (`12.0`) in each log that can be read, the site's own last."""
    logs = []
    for path in paths:
        try:
            logs.append(read_events(path, job))
        except OSError:
            continue  # another owner's, or gone
    site_log = _site_log()
    if site_log is not None:
        try:
            logs.append(read_rotated(site_log, job))
        except OSError:
            pass
    return [log for log in logs if log]


def _site_log() -> str | None:
    try:
        path = str(bindings().param.get("EVENT_LOG") or "")
    except (BadConfig, KeyError):
        return None
    return path if Path(path).is_absolute() else None
