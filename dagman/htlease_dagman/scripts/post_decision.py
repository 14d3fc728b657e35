"""What became of a node, decided from what the server knows and what DAGMan was told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Exit status of a wrapper whose attempt was overtaken by a later one.
SUPERSEDED = 76
#: The one phase of a job that names none (`rules.plan.Plan.single`), whose exit says it all.
_PLAIN = [("run", "resume", False)]

#: How the reason of a failed try ends that DAGMan may follow with another.
RETRY_MAY_FOLLOW = "may follow"


class Standing(NamedTuple):
    """How one try of a node stands on the server."""

    #: The submission in whose name POST acts: the try's job, or the try itself if no job showed.
    submission: str
    #: A later try of the node has been announced.
    is_overtaken: bool
    #: An attempt of this try's job has held the lease.
    is_seen: bool
    outcome: str | None
    #: Phases that are not complete; none where a state machine says how far the subjob is.
    missing: tuple[str, ...]
    #: A PRE script has announced the try.
    is_announced: bool = True
    #: How many jobs of their own names the node has; 0: its job has the node's.
    jobs: int = 0
    #: Its job has no phases of its own. Where no JOB_EXIT hook can run (HTCondor 25.4 on), or the
    #: last words of a starter were lost, nobody but DAGMan tells that it is done.
    is_plain: bool = False


def standing_of(document: Mapping[str, Any], try_id: str) -> Standing:
    """Read a subjob's document.

    What was submitted after this try was announced, and before the next one was, belongs to it:
    the job, and whatever the job was routed to.
    """
    submissions: Sequence[Mapping[str, Any]] = document["submissions"]
    announced = {one["epoch"]: one for one in submissions if one["retry"] is not None}
    first = next((e for e, one in announced.items() if one["global_job_id"] == try_id), 0)
    end = min((epoch for epoch in announced if epoch > first > 0), default=float("inf"))
    ours = [one for one in submissions if first <= one["epoch"] < end and one["global_job_id"]]
    plan = document["plan"] or {}
    return Standing(
        ours[-1]["global_job_id"] if first and ours else try_id,
        end != float("inf"),
        any(
            attempt["kind"] == "job" and first <= attempt["epoch"] < end
            for attempt in document["attempts"]
        ),
        document["outcome"],
        ()
        if plan.get("profile")
        else tuple(p["name"] for p in document["phases"] if p["completed_at"] is None),
        first > 0,
        is_plain=[(p["name"], p["restart"], p["exclusive"]) for p in document["phases"]] == _PLAIN,
    )


class Verdict(NamedTuple):
    """What POST writes and what it tells DAGMan."""

    #: commit, complete, failed; None where nothing is left to write.
    close: str | None
    exit: int
    reason: str
    #: Phases that the job's exit status shows to be done, which nobody has recorded.
    shown_complete: tuple[str, ...] = ()


def judge(
    standing: Standing, missing: Sequence[str], returned: int, chained: int | None
) -> Verdict:
    """Decide a node's end; `chained` is the exit status of the user's POST script, if it has one.

    `missing` are the phases not complete under POST's own lease, when nobody can write any more; of
    a node with several jobs those jobs.
    A job of which no attempt was seen runs without wrapper and hooks: DAGMan's `$RETURN` decides.
    """
    is_open = standing.outcome is None
    if chained:
        return Verdict("failed" if is_open else None, chained, f"the POST script exited {chained}")
    if standing.outcome == "complete":
        return Verdict(None, 0, "complete already")
    if not is_open:
        return Verdict(None, _status(returned), f"{standing.outcome} already")
    if returned not in (0, SUPERSEDED):
        if chained == 0:
            return Verdict("complete", 0, f"the POST script took {_ending(returned)} for success")
        return Verdict("failed", _status(returned), _ending(returned))
    if standing.jobs and not missing:
        return Verdict("complete", 0, f"all {standing.jobs} jobs are complete")
    if not standing.is_seen and not standing.jobs and returned == 0:
        return Verdict("complete", 0, "exit 0; no attempt under this name was seen")
    if standing.is_plain and standing.is_seen and returned == 0:
        return Verdict("commit", 0, _ending(returned), tuple(missing))
    if missing or not (standing.is_seen or standing.jobs):
        why = f"{_ending(returned)}, but not complete: {', '.join(missing) or 'nothing was seen'}"
        return Verdict("failed", _status(returned), why)
    return Verdict("commit", 0, _ending(returned))


def _status(returned: int) -> int:
    """Return a failing exit status for `$RETURN`, as a shell would put it."""
    if returned < 0:
        return 128 - returned if returned > -100 else 1
    return returned or 1


_WORDS = {
    -1001: "the job could not be submitted",
    -1002: "the job was removed",
    -1003: "DAGMan saw an error of the job",
    -1004: "the PRE script failed",
}


def _ending(returned: int) -> str:
    if returned in _WORDS:
        return _WORDS[returned]
    return f"the job was ended by signal {-returned}" if returned < 0 else f"exit {returned}"
