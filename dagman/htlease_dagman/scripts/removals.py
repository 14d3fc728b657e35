"""What DAGMan removed when it had to end before its time, told by the PRE script of the FINAL node.

It removes its jobs and then starts that node. It calls POST for those that are dead before the
FINAL node is done, and POST does not know who removed them; for the others it calls nothing.
"""

from __future__ import annotations

from htlease.condor.hold_codes import removed_by
from htlease.condor.queued_ad import REMOVED
from htlease.errors import HTLeaseError
from htlease_dagman.scripts.node_script import Script
from htlease_dagman.scripts.queue_ad import number, read_ads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NAMES = ("GlobalJobId", "JobStatus", "RemoveReason", "ClusterId", "HTLeaseKey")
#: A job may leave the queue, and so come into the history, long after it was removed.
_LEAVING_SECONDS = 86_400


def tell_of_removals(script: Script) -> None:
    """Record whose jobs were removed, and by whom; what the server does not hear, it is told later.

    The next run of the DAG tells what is missing, so no answer is worth a failure.
    """
    dag = script.call.macros["DAGID"]
    of_dag = f"DAGManJobId == {dag}"
    begun_at = int(script.call.dag.rpartition("#")[2])
    ads = [
        *read_ads("condor_q", ["-constraint", f"{of_dag} || ClusterId == {dag}"], _NAMES),
        *read_ads(
            "condor_history",
            [
                *("-constraint", f"{of_dag} && JobStatus == {REMOVED}"),
                *("-since", f"EnteredCurrentStatus < {begun_at - _LEAVING_SECONDS}"),
            ],
            _NAMES,
        ),
    ]
    try:
        for subjob, ad in removals(ads, int(dag), script.settings.workflow):
            reason = str(ad.get("RemoveReason", ""))
            script.of(subjob).send(
                "observed",
                global_job_id=ad["GlobalJobId"],
                what="removed",
                by=removed_by(reason),
                reason=reason or None,
            )
    except HTLeaseError as error:
        script.say(f"the server was not told of all that was removed: {error}")


def removals(
    ads: Iterable[Mapping[str, str | int]], dag: int, workflow: str
) -> Iterator[tuple[str, Mapping[str, str | int]]]:
    """Yield each subjob of a workflow that lost its job, with that job's ad and DAGMan's; pure."""
    removed = [ad for ad in ads if number(ad, "JobStatus") == REMOVED and "GlobalJobId" in ad]
    dagman = [ad for ad in removed if number(ad, "ClusterId") == dag]
    for ad in removed:
        of, slash, subjob = str(ad.get("HTLeaseKey", "")).partition("/")
        if slash and of == workflow:
            for one in (ad, *dagman):
                yield subjob, one
