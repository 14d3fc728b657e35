"""What an open subjob waits for, and what a person can do about it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from htlease_cli.show.timeline import hold_text, who_acted

_HELD = ("active", "recalled")


def waits_for(subjob: Mapping[str, Any]) -> str | None:
    """Say what is to come, by the server's document of a subjob; None where nothing is missing.

    The server hears of a job's end from its wrapper and hooks. That HTCondor has brought the
    output back, or has removed the job, only the access point sees.
    """
    status = subjob["status"]
    if subjob["outcome"] is not None or status in _HELD:
        return None
    key = f"{subjob['workflow']}/{subjob['subjob']}"
    hold = subjob.get("job_hold")
    if hold is not None:
        release = f"`condor_release {_number(hold['global_job_id'])}`"
        return f"its job is held by {who_acted(hold)}: {hold_text(hold)}; {release}"
    job = _newest_job(subjob)
    if job is not None and job in subjob.get("removed_jobs", ()):
        return (
            f"its job {_number(job)} was removed; a new submission continues from here, and "
            f"`htlease settle {key} --outcome cancelled` closes it"
        )
    if status == "exited":
        return _after_the_exit(subjob, key)
    if status == "waiting":
        return f"a start of its job; {_look(job)} says what keeps it"
    if status == "lapsed":
        return (
            "its lease ran out without a word from its attempt; HTCondor's next start takes it "
            f"over. {_look(job)} says whether there is one to come; if not, `htlease settle {key} "
            "--outcome failed`"
        )
    return f"the next start of its job; {_look(job)} says whether there is one to come"


def workflow_waits_for(workflow: str, subjobs: Sequence[Mapping[str, Any]]) -> str | None:
    """Say what the subjobs of a workflow that have exited wait for; None where none has."""
    exited = [one["subjob"] for one in subjobs if one["status"] == "exited"]
    if not exited:
        return None
    return (
        f"{len(exited)} exited: whether HTCondor has brought the output back, only its access "
        "point knows. An agent there (`htlease hooks install --role ap`) or DAGMan's POST script "
        f"reports it; without either, run `htlease commit {workflow}` once the jobs have left "
        f"the queue. `htlease explain {workflow}/{exited[0]}` says more."
    )


def _after_the_exit(subjob: Mapping[str, Any], key: str) -> str:
    missing = [one["name"] for one in subjob["phases"] if one.get("completed_fence") is None]
    if subjob.get("exit_code") == 0 and not missing:
        return (
            "word from the access point that the output is back: an agent there (`htlease hooks "
            "install --role ap`) or DAGMan's POST gives it by itself, and `htlease commit "
            f"{key}` does so by hand"
        )
    return (
        "HTCondor to start the job again (max_retries, a release, DAGMan's RETRY), or for word "
        "from the access point that it is over: an agent or DAGMan's POST gives it by itself, and "
        f"`htlease settle {key} --outcome failed` does so by hand"
    )


def _newest_job(subjob: Mapping[str, Any]) -> str | None:
    names = [one["global_job_id"] for one in subjob["submissions"] if one["global_job_id"]]
    jobs = [str(name) for name in names if "/" not in name]
    return jobs[-1] if jobs else None


def _number(global_job_id: str) -> str:
    return global_job_id.rpartition("#")[0].rpartition("#")[2] or global_job_id


def _look(job: str | None) -> str:
    return f"`condor_q -better-analyze {_number(job)}`" if job else "`condor_q`"
