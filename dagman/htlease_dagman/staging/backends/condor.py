"""The back-end for HTCondor's own file transfer: each task is a small job that does nothing else.

Its inputs go into the job's scratch directory and from there, as its outputs, to where they belong,
by HTCondor's transfer and its plug-ins (`osdf://`, `https://`, `s3://`). Runs where a schedd is.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from htlease.condor.queued_ad import COMPLETED, HELD, IDLE, REMOVED, job_number
from htlease.rules.end_proof import of_queue
from htlease_dagman.scripts.queue_ad import queue_birthdate
from htlease_dagman.staging.transfer import (
    CannotFind,
    NeedsPerson,
    Place,
    Refused,
    ServiceUnavailable,
    State,
    TaskStatus,
    Transfer,
)

CALL_SECONDS = 30.0
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: HoldReasonCode of a transfer that failed, from and to the scratch directory. Source: manual.
_TRANSFER_FAILED = (12, 13)
_ATTRIBUTES = (
    *("GlobalJobId", "ClusterId", "ProcId", "JobStatus", "ExitCode", "HoldReason"),
    *("HoldReasonCode", "LastHoldReason", "LastHoldReasonCode", "RemoveReason"),
)
_SUBMIT = """\
executable = /bin/true
transfer_executable = false
should_transfer_files = YES
when_to_transfer_output = ON_EXIT
transfer_input_files = {inputs}
transfer_output_files = {outputs}
transfer_output_remaps = "{remaps}"
request_cpus = 1
request_memory = 64
{own}
My.HTLease = false
My.HTLeaseRole = "staging"
My.HTLeaseTransferKey = "{key}"
# What failed is followed by another task; its reason stays in the history.
periodic_remove = JobStatus == 5 && (HoldReasonCode == 12 || HoldReasonCode == 13)
queue
"""


class CondorBackend:
    """Speaks to the schedd of this machine by HTCondor's tools."""

    submits_once = False
    ends_with_watcher = False

    def __init__(self, commands: Mapping[str, str]) -> None:
        """Prepare; `commands` are further submit commands for each job."""
        self._commands = commands

    def reserve(self, key: str) -> str | None:
        """Return the JobQueueBirthdate: in a later queue no look-up finds what is submitted now."""
        return str(_queue_born_at())

    def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
        """Queue the job and return its GlobalJobId."""
        description = submit_text(key, transfer, self._commands)
        _make_folders(transfer)
        done = self._run(["condor_submit", "-terse", "-"], description)
        if done.returncode != 0:
            # It may have been queued before the connection broke; a look-up by the key tells.
            raise ServiceUnavailable(
                f"condor_submit ended with {done.returncode}: {_last_line(done.stderr)}"
            )
        found = self._find_by_key(key)
        if found is None:
            raise ServiceUnavailable("the schedd does not show the job that was just queued")
        return found

    def poll(self, external_id: str) -> TaskStatus:
        """Look at the job in queue and history."""
        found = self._find(f'GlobalJobId == "{external_id}"')
        if found is not None:
            return status_of(found)
        of_its_queue = of_queue(external_id, _queue_born_at())
        if not of_its_queue.is_proof:
            raise CannotFind(of_its_queue.why)
        return TaskStatus(State.UNKNOWN)

    def cancel(self, external_id: str) -> None:
        """Remove the job."""
        done = self._run(["condor_rm", "-constraint", f'GlobalJobId == "{external_id}"'])
        if done.returncode != 0 and self.poll(external_id).state is State.RUNNING:
            raise ServiceUnavailable(
                f"condor_rm ended with {done.returncode}: {_last_line(done.stderr)}"
            )

    def find_by_key(self, key: str, reservation: str | None = None) -> str | None:
        """Look for the job by its attribute, in the queue and then in the history."""
        found = self._find_by_key(key)
        if found is None and str(_queue_born_at()) != reservation:
            raise CannotFind("the schedd has lost the job queue that it would be in")
        return found

    def _find_by_key(self, key: str) -> str | None:
        found = self._find(f'HTLeaseTransferKey == "{key}"')
        return None if found is None else str(found["GlobalJobId"])

    def check(self, place: Place, has_to_exist: bool) -> str | None:
        """Look at a directory of this machine; of a URL nothing is known ahead."""
        if _URL.match(place.path) or not has_to_exist or PurePosixPath(place.path).is_absolute():
            return None
        return f"{place.path} is neither a URL nor a full path"

    def close(self) -> None:
        """Nothing is kept open."""

    def _find(self, constraint: str) -> dict[str, Any] | None:
        asked = ["-constraint", constraint, "-json", "-attributes", ",".join(_ATTRIBUTES)]
        # A job that leaves the queue between the two looks is found at the next one.
        for tool in (["condor_q", "-allusers"], ["condor_history", "-limit", "1"]):
            done = self._run([*tool, *asked])
            if done.returncode != 0:
                raise ServiceUnavailable(
                    f"{tool[0]} ended with {done.returncode}: {_last_line(done.stderr)}"
                )
            try:
                ads: list[dict[str, Any]] = json.loads(done.stdout.strip() or "[]")
            except ValueError:
                raise ServiceUnavailable(f"{tool[0]} printed what is no JSON") from None
            if ads:
                return ads[-1]
        return None

    def _run(self, argv: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv, input=given, capture_output=True, text=True, timeout=CALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ServiceUnavailable(f"{argv[0]} did not end in {CALL_SECONDS:g} s") from None
        except OSError as error:
            raise NeedsPerson(f"make {argv[0]} runnable here: {error.strerror}") from None


def _queue_born_at() -> int:
    """Return since when the schedd has had its job queue; raises ServiceUnavailable."""
    born_at = queue_birthdate()
    if born_at is None:
        raise ServiceUnavailable(
            "the schedd does not tell how old its job queue is (JobQueueBirthdate)"
        )
    return born_at


def submit_text(key: str, transfer: Transfer, commands: Mapping[str, str]) -> str:
    """Return the submit description of a task; raises Refused for what a job cannot transfer."""
    inputs, remaps = [], {}
    for source, destination in transfer.pairs():
        for path in (source, destination):
            if re.search(r"[\s,;=\"']", path):
                raise Refused(
                    f"{path} has a character that no list of files can hold", is_fatal=True
                )
        # With a slash at its end HTCondor would take what is in a directory, and not it.
        name = PurePosixPath(source.rstrip("/")).name
        if name in remaps:
            raise Refused(
                f"two files are called {name}, which one scratch directory cannot hold; make two "
                "transfers of them",
                is_fatal=True,
            )
        inputs.append(source.rstrip("/"))
        remaps[name] = destination.rstrip("/")
    return _SUBMIT.format(
        key=key,
        inputs=", ".join(inputs),
        outputs=", ".join(remaps),
        remaps="; ".join(f"{name}={path}" for name, path in remaps.items()),
        own="\n".join(f"{name} = {value}" for name, value in commands.items()),
    )


def _make_folders(transfer: Transfer) -> None:
    """Make the directories of this machine into which HTCondor is to write."""
    for _, destination in transfer.pairs():
        folder = Path(destination.rstrip("/")).parent
        if _URL.match(destination):
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NeedsPerson(f"make {folder} a directory of yours: {error.strerror}") from None


def status_of(ad: Mapping[str, Any]) -> TaskStatus:
    """Say what a job's ad means for its transfer; pure."""
    job, status = job_number(ad), ad["JobStatus"]
    if status == COMPLETED:
        if ad.get("ExitCode") == 0:
            return TaskStatus(State.DONE)
        return TaskStatus(State.RETRYABLE, f"job {job} ended with {ad.get('ExitCode')}")
    code = ad.get("HoldReasonCode", ad.get("LastHoldReasonCode"))
    reason = str(ad.get("HoldReason", ad.get("LastHoldReason", "no reason given")))
    if status == HELD and code not in _TRANSFER_FAILED:
        return TaskStatus(State.NEEDS_ACTION, f"run: condor_release {job}   (held: {reason})")
    if status == HELD:
        return TaskStatus(State.RUNNING, reason)  # it is about to be removed
    if status == REMOVED:
        if code in _TRANSFER_FAILED:
            return TaskStatus(State.RETRYABLE, reason)
        return TaskStatus(State.FATAL, f"job {job} was removed: {ad.get('RemoveReason', '')}")
    return TaskStatus(State.RUNNING, f"job {job} is {'running' if status != IDLE else 'idle'}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing said"
