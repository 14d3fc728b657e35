"""Whether the last start of a node's job is proven to be over, asked on the access point."""

from __future__ import annotations

from htlease.condor.event_log import read_events
from htlease.rules.end_proof import ATTRIBUTES, Finding, job_from, of_log, of_queue, of_startd
from htlease_dagman.scripts.queue_ad import queue_birthdate, read_ads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: What `finding` wants to know of a job. DAGMan's own log of its jobs leaves 022 and 023 out, but
#: not 024; what it has of ends is complete. Source: DAGManNodesMask, measured on 23.9.6, 25.14.1.
NAMES = ("GlobalJobId", "DAGManNodesLog", *ATTRIBUTES)


def finding(job: str, ad: Mapping[str, str | int], may_run_again: bool = False) -> Finding:
    """Judge the last start of a job (`12.0`) that its ad, read before, shows to be over.

    A job that may run again meanwhile is judged by its startd alone.
    """
    facts = job_from(ad)
    reasons = []
    log = ad.get("DAGManNodesLog")
    if isinstance(log, str) and not may_run_again:
        try:
            by_log = of_log(read_events(log, job), facts)
        except OSError as error:
            by_log = Finding(False, f"{log}: {error.strerror or error}")
        if by_log.is_proof:
            of_its_queue = of_queue(str(ad.get("GlobalJobId")), queue_birthdate())
            if of_its_queue.is_proof:
                return by_log
            by_log = of_its_queue
        reasons.append(by_log.why)
    slots = None
    if facts.startd is not None:
        names = ("MyAddress", "GlobalJobId")
        slots = read_ads("condor_status", ["-pool", facts.startd], names) or None
    by_startd = of_startd(str(ad.get("GlobalJobId")), facts, slots)
    if by_startd.is_proof:
        return by_startd
    return Finding(False, "; ".join([*reasons, by_startd.why]))
