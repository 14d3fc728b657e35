"""The schedd and its configuration; the only importer of HTCondor's Python bindings.

What asks a daemon, reads the configuration or a job's log is called by `bindings_process` alone,
which does it in a process of its own. Only what parses submit language is called from elsewhere:
it asks nobody, so it waits for nobody, and it looks for files where its caller is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from htlease.condor.job_event import JobEvent
from htlease.condor.queue_statement import read_queue, split_item
from htlease.condor.submit_description import Commands, Description
from htlease.errors import BadConfig, HTLeaseError, InvalidField

#: What an attribute of an ad can be here.
Plain = str | int | float | bool


class ScheddUnavailable(HTLeaseError):
    """The schedd gave no answer, so what it did is not known."""


class ActionRefused(HTLeaseError):
    """The schedd would not do to some jobs what was asked."""


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue."""

    cluster: int
    proc: int
    #: None when the job had left the queue before anybody could ask.
    global_job_id: str | None
    key: str
    #: HTCondor lets it leave the queue without running it.
    is_noop: bool = False


@dataclass(frozen=True)
class AccessPoint:
    """A schedd that answers."""

    name: str
    #: E.g. `23.9.6`; of the bindings, where the schedd does not tell its own.
    version: str


def bindings() -> Any:
    """Return the bindings: htcondor2, or htcondor of older installations. Raises BadConfig."""
    with warnings.catch_warnings():
        # They warn at import when there is no configuration; doctor says it in our words.
        warnings.simplefilter("ignore")
        try:
            import htcondor2

            return htcondor2
        except ImportError:
            pass
        try:
            import htcondor
        except ImportError:
            raise BadConfig(
                "HTCondor's Python bindings are not installed; install them with "
                "`pip install 'htlease[condor]'`"
            ) from None
    if not hasattr(htcondor, "Schedd"):
        raise BadConfig(
            "the installed `htcondor` package has no bindings; `pip install 'htlease[condor]'`"
        )
    return htcondor


def read_description(text: str, overrides: Mapping[str, str]) -> Description:
    """Read a submit file as condor_submit would; raises InvalidField."""
    try:
        submit = bindings().Submit(text)
        for name, value in overrides.items():
            submit[name] = value
        commands = Commands(dict(submit.items()))
        queue = read_queue(submit.getQArgs() or "")
        items = submit.itemdata() if queue.variables else None
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidField("submit file", _one_line(error)) from None
    return Description(
        commands,
        _evaluated(queue.count, commands),
        None if items is None else tuple(_item(item, queue.variables) for item in items if item),
    )


def commands_of(text: str) -> dict[str, str]:
    """Return what a submit description sets, macros not expanded; raises InvalidField."""
    try:
        return {str(name): str(value) for name, value in bindings().Submit(text).items()}
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidField("submit description", _one_line(error)) from None


def expanded(text: str, names: Iterable[str]) -> dict[str, str]:
    """Return what commands of a submit file come to, empty for absent ones; raises ValueError."""
    try:
        submit = bindings().Submit(text)
        return {name: submit.expand(name) if name in submit else "" for name in names}
    except (RuntimeError, KeyError) as error:
        raise ValueError(_one_line(error)) from None


def _item(item: Any, variables: tuple[str, ...]) -> dict[str, str]:
    """Return an item as variables: newer bindings have split its line, 23.9 has not."""
    if isinstance(item, str):
        return split_item(item, variables)
    return {str(name): str(value) for name, value in item.items()}


def _evaluated(count: str, commands: Commands) -> int:
    """Work out the count of a queue statement, which may be an expression with macros."""
    submit = bindings().Submit({**commands, "htlease_count": count})
    submit["htlease_count_value"] = "$INT(htlease_count)"
    try:
        return int(submit.expand("htlease_count_value"))
    except (KeyError, ValueError, RuntimeError):
        raise InvalidField("queue", f"{count!r} is not a number of jobs") from None


def expand_each(description: Description, name: str) -> Iterator[str]:
    """Return what a command expands to in each job, in the order of `$(Process)`."""
    submit = bindings().Submit(dict(description.commands))
    process = 0
    for index, item in enumerate(({},) if description.items is None else description.items):
        for variable, value in item.items():
            submit[variable] = value
        submit["ItemIndex"] = submit["Row"] = str(index)
        for step in range(description.count):
            submit["Step"] = str(step)
            submit["Process"] = submit["ProcId"] = str(process)
            yield submit.expand(name)
            process += 1


def locate(name: str | None = None) -> AccessPoint:
    """Find the schedd to talk to and make sure that it answers; raises ScheddUnavailable."""
    module = bindings()
    try:
        schedd, where = _open(name)
        schedd.query(constraint="false", projection=["ClusterId"], limit=1)
    except Exception as error:
        raise ScheddUnavailable(
            f"the schedd {name or 'of this machine'} does not answer: {_one_line(error)}; is "
            "HTCondor running here, and does CONDOR_CONFIG name its configuration?"
        ) from error
    version = re.search(r"\d+\.\d+\.\d+", str(where.get("CondorVersion") or module.version()))
    return AccessPoint(str(where.get("Name") or "local"), version[0] if version else "unknown")


def _open(name: str | None) -> tuple[Any, Mapping[str, Any]]:
    module = bindings()
    if name is not None:
        where = module.Collector().locate(module.DaemonType.Schedd, name)
        if where is None:  # 23.9; later bindings raise
            raise LookupError("the collector knows no schedd of that name")
        return module.Schedd(where), where
    schedd = module.Schedd()
    try:
        where = module.Collector().locate(module.DaemonType.Schedd)
    except Exception:
        where = None  # no collector, yet a schedd: its address file was enough
    return schedd, where or {}


def queue_birthdate(name: str | None = None) -> int | None:
    """Return since when the schedd has had its job queue (JobQueueBirthdate, seconds since 1970).

    The schedd itself is asked, since the collector's ad is some minutes old. None when it does
    not say. Raises ScheddUnavailable.
    """
    module = bindings()
    try:
        where = _open(name)[1] or module.Collector().locate(module.DaemonType.Schedd)
        ads = module.Collector(str(where["MyAddress"])).query(
            module.AdTypes.Schedd, "true", projection=["Name", "JobQueueBirthdate"]
        )
    except Exception as error:
        raise ScheddUnavailable(f"the schedd does not answer: {_one_line(error)}") from error
    born = {ad.get("JobQueueBirthdate") for ad in ads if ad.get("Name") == where.get("Name")}
    found = born.pop() if len(born) == 1 else None
    return found if type(found) is int else None


def jobs_of_submission(submission_id: str, name: str | None = None) -> list[QueuedJob]:
    """Return the jobs that bear a submission's mark; raises ScheddUnavailable."""
    try:
        ads = _open(name)[0].query(
            constraint=f'HTLeaseSubmission == "{submission_id}"',
            projection=["ClusterId", "ProcId", "GlobalJobId", "HTLeaseKey", "IsNoopJob"],
        )
    except Exception as error:
        raise ScheddUnavailable(f"the schedd does not answer: {_one_line(error)}") from error
    jobs = [
        QueuedJob(
            int(ad["ClusterId"]),
            int(ad["ProcId"]),
            str(ad["GlobalJobId"]),
            str(ad["HTLeaseKey"]),
            ad.get("IsNoopJob") is True,
        )
        for ad in ads
    ]
    return sorted(jobs, key=lambda job: (job.cluster, job.proc))


def remove_submission(submission_id: str, reason: str, name: str | None = None) -> None:
    """Remove the jobs that bear a mark, and what was to become of a factory; raises as above."""
    module = bindings()
    try:
        constraint = f'HTLeaseSubmission == "{submission_id}"'
        _open(name)[0].act(module.JobAction.Remove, constraint, (reason, "0"))
    except Exception as error:
        raise ScheddUnavailable(f"the schedd does not answer: {_one_line(error)}") from error


def read_jobs(
    constraint: str, attributes: Sequence[str], name: str | None = None
) -> list[dict[str, Plain]]:
    """Return these attributes of the queued jobs that match; raises ScheddUnavailable.

    An attribute that is undefined, or no number, text or truth value, is left out.
    """
    try:
        ads = _open(name)[0].query(constraint=constraint, projection=list(attributes))
        return [_plain(ad, attributes) for ad in ads]
    except Exception as error:
        raise ScheddUnavailable(f"the schedd does not answer: {_one_line(error)}") from error


def read_history(
    constraint: str,
    attributes: Sequence[str],
    until: str | None,
    most: int,
    name: str | None = None,
) -> list[dict[str, Plain]]:
    """Return these attributes of the jobs that left the queue, the last one first.

    Stops before the first record for which `until` is true, and after `most` matches (-1: no
    limit). Raises ScheddUnavailable.
    """
    try:
        since = None if until is None else _expression(until)
        ads = _open(name)[0].history(constraint, list(attributes), match=most, since=since)
        return [_plain(ad, attributes) for ad in ads]
    except Exception as error:
        raise ScheddUnavailable(f"the history cannot be read: {_one_line(error)}") from error


def hold(jobs: Sequence[str], reason: str, subcode: int, name: str | None = None) -> None:
    """Hold jobs (`12.0`) under a reason and a HoldReasonSubCode; raises ScheddUnavailable."""
    _act("Hold", jobs, (reason, str(subcode)), name)


def release(jobs: Sequence[str], reason: str, name: str | None = None) -> None:
    """Release held jobs, whoever held them; raises ScheddUnavailable."""
    # Bindings of some versions drop a reason that comes without a code.
    _act("Release", jobs, (reason, "0"), name)


def _act(action: str, jobs: Sequence[str], why: tuple[str, str], name: str | None) -> None:
    if not jobs:
        return
    try:
        schedd = _open(name)[0]
        done = schedd.act(getattr(bindings().JobAction, action), list(jobs), why)
        if action == "Release":
            schedd.reschedule()  # as condor_release does: look for machines now
        denied = int(done["TotalPermissionDenied"]) if done is not None else 0
    except Exception as error:
        raise ScheddUnavailable(f"the schedd does not answer: {_one_line(error)}") from error
    if denied:
        raise ActionRefused(
            f"{denied} of {len(jobs)} jobs are not yours to {action.lower()}; do it as their owner"
        )


def read_event_log(path: str, job: str) -> list[JobEvent]:
    """Return the events of one job (`12.0`) so far; raises OSError."""
    cluster, _, proc = job.partition(".")
    try:
        events = list(bindings().JobEventLog(path).events(stop_after=0))
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"it is no event log: {_one_line(error)}") from error
    return [
        JobEvent(job, int(event.type), event.type.name, float(event.timestamp), dict(event.items()))
        for event in events
        if (event.cluster, event.proc) == (int(cluster), int(proc))
    ]


def _expression(text: str) -> Any:
    """Return a ClassAd expression of the same generation as the bindings."""
    if bindings().__name__ == "htcondor2":
        import classad2

        return classad2.ExprTree(text)
    import classad

    return classad.ExprTree(text)


def _plain(ad: Any, attributes: Sequence[str]) -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    for name in attributes:
        if name in ad:
            value = ad.eval(name)
            if isinstance(value, (str, bool, float)) or type(value) is int:
                found[name] = value
    return found


def read_knobs(names: Sequence[str]) -> dict[str, str]:
    """Return the configuration values that are set, as this machine's configuration has them."""
    param = bindings().param
    return {name: str(param[name]) for name in names if name in param}


def bindings_version() -> tuple[int, ...]:
    """Return the version of the bindings, e.g. (23, 9, 6); raises BadConfig."""
    return tuple(map(int, re.findall(r"\d+", bindings().version())[:3]))


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
