"""The jobs of a workflow: those that the server was told of, and those that say it in their ads.

A job of an instrumented DAG may know nothing of htlease; its ad has `HTLeaseKey` all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from htlease.condor.bindings_process import read_history, read_jobs
from htlease.condor.schedd import Plain
from htlease.rules.attempt import SubjobKey

_ATTRIBUTES = (
    *("GlobalJobId", "HTLeaseKey", "ClusterId", "ProcId", "NumJobStarts"),
    *("Iwd", "Out", "Err", "UserLog", "DAGManNodesLog"),
)
#: What a schedd calls a job: its own name, cluster, process, and when it was submitted.
_GLOBAL_JOB_ID = re.compile(r"[^#\s\"\\]+#\d+\.\d+#\d+")


class Jobs:
    """The ads of a workflow's jobs on one schedd, as they were seen last."""

    def __init__(self, workflow: str, schedd_name: str | None = None) -> None:
        self.workflow = workflow
        self._schedd_name = schedd_name
        self._ads: dict[str, dict[str, Plain]] = {}
        #: Those that the history was searched for; it is long, and what is in it stays the same.
        self._searched: set[str] | None = None

    def read(self, global_job_ids: Iterable[str]) -> None:
        """Ask for the workflow's jobs, and for these; raises ScheddUnavailable."""
        wanted = {one for one in global_job_ids if _GLOBAL_JOB_ID.fullmatch(one)}
        prefix = f"{self.workflow}/"
        named = f'substr(HTLeaseKey ?: "", 0, {len(prefix)}) =?= "{prefix}"'
        constraint = " || ".join([named, *(f'GlobalJobId =?= "{one}"' for one in sorted(wanted))])
        self._keep(read_jobs(constraint, _ATTRIBUTES, self._schedd_name))
        if self._searched is None or wanted - self._searched - self._ads.keys():
            self._keep(read_history(constraint, _ATTRIBUTES, None, -1, self._schedd_name))
            self._searched = wanted

    def of(self, key: SubjobKey, global_job_ids: Iterable[str]) -> Iterator[dict[str, Plain]]:
        """Yield the ads of a subjob's jobs, in the order in which they were submitted."""
        known = set(global_job_ids)
        for global_job_id, ad in sorted(self._ads.items(), key=lambda item: _number(item[1])):
            if global_job_id in known or ad.get("HTLeaseKey") == str(key):
                yield ad

    def _keep(self, ads: Iterable[dict[str, Plain]]) -> None:
        for ad in ads:
            self._ads[str(ad["GlobalJobId"])] = ad


def _number(ad: dict[str, Plain]) -> tuple[int, int]:
    return int(ad["ClusterId"]), int(ad["ProcId"])
