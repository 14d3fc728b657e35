"""Looks at queue and history every few seconds and has reported what ended since the last look.

A job that is in neither says nothing: only a record of its end does.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from htlease.condor.queued_ad import COMPLETED, HELD
from htlease.errors import BadConfig, HTLeaseError
from htlease.rules.end_proof import Job, job_from
from htlease_agent.proxy.networkless_leases import NetworklessLeases
from htlease_agent.queue_reader import QueueReader
from htlease_agent.reconcile import held_jobs
from htlease_agent.reconcile.job_end import ATTRIBUTES, End, end_of
from htlease_agent.reconcile.report_end import Reports

#: How far back the first look ever goes.
FIRST_LOOK_SECONDS = 7 * 86400.0
#: No lease lasts longer than seven days; what is still open then is left to a person.
GIVE_UP_SECONDS = 8 * 86400.0
_HAS_KEY = "HTLeaseKey =!= undefined && HTLease =!= false"
_STATE_FILE = "watcher.json"

log = logging.getLogger("htlease_agent")


@dataclass
class Progress:
    """What the watcher has to remember over a crash."""

    #: GlobalJobId of the newest history record that was looked at.
    since: str | None = None
    #: GlobalJobId -> an end that could not be settled yet, and when it was seen first (1970).
    waiting: dict[str, tuple[End, float]] = field(default_factory=dict)
    #: JobQueueBirthdate of the schedd at the last look.
    queue_born_at: int | None = None

    @classmethod
    def read(cls, directory: Path) -> Progress:
        """Return what was remembered; a fresh start when there is nothing. Raises BadConfig."""
        path = directory / _STATE_FILE
        try:
            document = json.loads(path.read_text())
            waiting = {
                name: (_end_from(entry["end"]), float(entry["since"]))
                for name, entry in document["waiting"].items()
            }
            return cls(document["since"], waiting, document.get("queue_born_at"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadConfig(
                f"{path}: {error}; remove it, and the agent looks through the history again"
            ) from None

    def write(self, directory: Path) -> None:
        """Replace the file in one step; raises OSError."""
        document: dict[str, Any] = {
            "since": self.since,
            "waiting": {
                name: {"end": asdict(end), "since": since}
                for name, (end, since) in self.waiting.items()
            },
            "queue_born_at": self.queue_born_at,
        }
        temporary = directory / f"{_STATE_FILE}.new"
        with temporary.open("w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / _STATE_FILE)


def _end_from(fields: dict[str, Any]) -> End:
    """Return an end that was written down, by an earlier version too."""
    fields.pop("may_be_alive", None)
    job = fields.pop("job", None)
    known = job_from({}) if job is None else Job(*job)
    return End(**{"log": None, "is_stamped": False, **fields, "job": known})


class QueueWatcher:
    """Watches one schedd."""

    def __init__(
        self,
        reports: Reports,
        queue: QueueReader,
        directory: Path,
        poll_seconds: float,
        chirp: NetworklessLeases,
    ) -> None:
        """Prepare to watch; raises BadConfig when the state directory cannot be used."""
        self._reports = reports
        self._holds = held_jobs.Holds(reports.server)
        self._queue = queue
        self._chirp = chirp
        self._directory = directory
        self._poll_seconds = poll_seconds
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._progress = Progress.read(directory)
            self._progress.write(directory)
        except OSError as error:
            raise BadConfig(
                f"state directory {directory}: {error.strerror}; name another with --state-dir"
            ) from None
        #: Ended jobs that stay in the queue and were reported.
        self._reported: set[End] = set()
        self._trouble: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Look again and again until told to stop; nothing ends this but that."""
        while not stop.is_set():
            try:
                self.look()
                self._say_trouble(None)
            except (HTLeaseError, OSError) as error:
                self._say_trouble(str(error))
            except Exception:
                log.exception("a look at the queue failed")
            stop.wait(self._poll_seconds)

    def _say_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            log.warning("ends of jobs wait: %s", trouble) if trouble else log.info("caught up")
            self._trouble = trouble

    def look(self) -> None:
        """Look once; raises ServerUnavailable or ScheddUnavailable, and goes on from there."""
        before = replace(self._progress, waiting=dict(self._progress.waiting))
        try:
            self._look_at_birthdate()
            for end, _ in list(self._progress.waiting.values()):
                self._report(end)
            self._chirp.look(self._queue)
            self._look_at_history()
            self._look_at_queue()
        finally:
            if self._progress != before:
                self._progress.write(self._directory)

    def _look_at_birthdate(self) -> None:
        """Say that the schedd has lost its job queue: it answers "no such job" without an error."""
        born_at, known = self._queue.birthdate(), self._progress.queue_born_at
        if born_at is None or born_at == known:
            return
        if known is not None:
            log.warning(
                "the schedd has another job queue than before (JobQueueBirthdate %d, was %d): "
                "nothing more is heard of the jobs in the old one, so their leases run out by "
                "themselves, and `htlease settle` closes their subjobs",
                born_at,
                known,
            )
        self._progress.queue_born_at = born_at

    def _look_at_history(self) -> None:
        newest = self._queue.read_history("true", ("GlobalJobId",), None, 1)
        position = str(newest[0]["GlobalJobId"]) if newest else None
        if position is None or position == self._progress.since:
            return
        if self._progress.since is None:
            until = f"EnteredCurrentStatus < {time.time() - FIRST_LOOK_SECONDS:.0f}"
        else:
            until = f'GlobalJobId == "{self._progress.since}"'
        ads = self._queue.read_history(_HAS_KEY, ATTRIBUTES, until, -1)
        for ad in reversed(ads):
            end = end_of(ad)
            if end is not None:
                self._report(end)
                self._progress.since = end.global_job_id
        self._progress.since = position

    def _look_at_queue(self) -> None:
        constraint = f"(JobStatus == {COMPLETED} || JobStatus == {HELD}) && {_HAS_KEY}"
        ads = self._queue.read_jobs(constraint, (*ATTRIBUTES, *held_jobs.ATTRIBUTES))
        self._holds.look([ad for ad in ads if ad.get("JobStatus") == HELD], self._queue)
        ends = {end for end in map(end_of, ads) if end is not None}
        for end in ends - self._reported:
            if end.status == HELD:
                self._reports.report(end)
            else:
                self._report(end)
        self._reported = ends

    def _report(self, end: End) -> None:
        name = end.global_job_id
        self._chirp.job_ended(name, self._queue)
        if self._reports.report(end):
            self._chirp.job_settled(name)
            self._progress.waiting.pop(name, None)
            return
        _, since = self._progress.waiting.setdefault(name, (end, time.time()))
        if time.time() - since > GIVE_UP_SECONDS:
            log.error("%s: its lease has not ended since %s did; giving up", end.key, name)
            del self._progress.waiting[name]
