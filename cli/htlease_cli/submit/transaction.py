"""Carrying a submission out wholly or not at all.

The order is what keeps it whole: record workflow and reservation, make tokens, submit, compare. A
server that is away stops it before anything is queued. `condor_submit` is run once; if its answer
is lost, the jobs are looked up by their mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease.client.client import LeaseServer
from htlease.condor import bindings_process as schedd
from htlease.condor.schedd import QueuedJob, ScheddUnavailable
from htlease.errors import HTLeaseError, InvalidField, Refused
from htlease.rules.attempt import SubjobKey
from htlease.rules.messages import LABEL_MAX_CHARS, TEXT_MAX_CHARS
from htlease.rules.plan import Plan
from htlease_cli.submit import condor_submit
from htlease_cli.submit.condor_submit import Answer, SubmitRefused
from htlease_cli.submit.enrolment import Enrolment, check_distinct
from htlease_cli.submit.token_files import TokenFiles, cluster_of

Say = Callable[[str], None]
#: Of a workflow: what became of a submission, by its ID.
_LABEL = "submission-"
_NOT_SUBMITTED = "not submitted: "
#: How long a shared token lasts that is for any job of the workflow: until condor_submit is done.
_FIRST_TTL_SECONDS = 3600.0
_SPOOLS = re.compile("-(?:s|sp|spo|spoo|spool)$")


@dataclass(frozen=True)
class Submission:
    """Everything that is settled before the first call."""

    id: str
    file: Path
    #: For `condor_submit -append`.
    appended: str
    #: Options of condor_submit, the user's own lines among them.
    options: tuple[str, ...]
    workflow: str
    #: Of each job by process, where they are known before; None: they are enrolled afterwards.
    keys: tuple[SubjobKey, ...] | None
    plan: Plan | None
    tokens: TokenFiles
    token_ttl_seconds: float
    schedd_name: str | None
    force: bool
    is_interactive: bool = False

    @property
    def keeps_first_token(self) -> bool:
        """Tell whether the jobs take a shared token along before its cluster is known."""
        return self.is_interactive or any(_SPOOLS.match(option) for option in self.options)


@dataclass(frozen=True)
class Submitted:
    """What was submitted."""

    #: By cluster, as condor_submit said; of a factory also what is not in the queue yet.
    job_counts: dict[int, int]
    #: In the queue, or foreseen and gone from there already.
    jobs: list[QueuedJob]


def carry_out(submission: Submission, server: LeaseServer, say: Say) -> Submitted:
    """Reserve, make tokens, submit, compare; raises what stopped it, nothing left half done."""
    condor_submit.find()
    schedd.locate(submission.schedd_name)
    enrolment = Enrolment(server, submission.plan, submission.force)
    try:
        _label_reserved(submission, server)
    except HTLeaseError:
        say("nothing was submitted")
        raise
    try:
        _reserve(submission, enrolment)
    except BaseException as error:  # an interrupt, too, comes before anything is queued
        _take_back(submission, enrolment, error, say)
        why = str(error) or type(error).__name__
        _label(submission, server, f"{_NOT_SUBMITTED}{why}", say)
        raise
    try:
        answer = _submit(submission)
    except SubmitRefused as refusal:
        _take_back(submission, enrolment, refusal, say)
        _label(submission, server, f"{_NOT_SUBMITTED}{refusal}", say)
        raise
    for warning in answer.warnings:
        say(warning)
    jobs = _queued(submission, answer)
    if not submission.is_interactive:
        try:
            _compare(submission, enrolment, answer, jobs, say)
        except (InvalidField, Refused) as error:
            _undo(submission, enrolment, error, say)
            _label(submission, server, f"{_NOT_SUBMITTED}{error}", say)
            raise
    if submission.keys is None and not submission.keeps_first_token:
        _share_token(submission, server, answer, jobs, say)
    for job in jobs:
        _bind(enrolment, job, say)
    noop = next((job for job in jobs if job.is_noop), None)
    if noop is not None:
        say(
            f"noop_job: HTCondor may run nothing of {noop.key}; once the job has left the queue, "
            f"`htlease settle {noop.key} --outcome complete` closes what waits for a start"
        )
    _label(submission, server, ", ".join(_counts(answer)) or "submitted", say)
    return Submitted(answer.job_counts, jobs)


def is_of_refused_submissions(workflow: Mapping[str, Any]) -> bool:
    """Tell by the server's document if a workflow has nothing but submissions that were refused."""
    said = [text for name, text in workflow["labels"].items() if name.startswith(_LABEL)]
    counts = workflow["counts"]
    is_bare = not any(number for status, number in counts.items() if status != "cancelled")
    return is_bare and bool(said) and all(text.startswith(_NOT_SUBMITTED) for text in said)


def _label_reserved(submission: Submission, server: LeaseServer) -> None:
    labels = server.workflow_labels(submission.workflow)
    labels[_LABEL + submission.id] = "reserved"
    server.put_workflow(submission.workflow, {"labels": labels})


def _reserve(submission: Submission, enrolment: Enrolment) -> None:
    if submission.schedd_name is not None:
        submission.tokens.note_schedd(submission.schedd_name)
    if submission.keys is None:
        ttl_seconds = submission.token_ttl_seconds
        if not submission.keeps_first_token:
            ttl_seconds = min(ttl_seconds, _FIRST_TTL_SECONDS)
        minted = enrolment.server.mint_token(submission.workflow, None, ttl_seconds, role="job")
        submission.tokens.write(None, minted["token"])
        return
    for process, key in enumerate(submission.keys):
        _provide(submission, enrolment, process, key)


def _share_token(
    submission: Submission,
    server: LeaseServer,
    answer: Answer,
    jobs: Sequence[QueuedJob],
    say: Say,
) -> None:
    """Put a token for the jobs of this submission in the place of the first, which is for any job.

    Only the answer tells the cluster. With more than one (23.9 makes another where the executable
    changes) it is for any job of the workflow.
    """
    cluster = cluster_of(job.global_job_id for job in jobs if job.global_job_id)
    if len(answer.job_counts) > 1:
        cluster = None
    ttl_seconds = submission.token_ttl_seconds
    try:
        minted = server.mint_token(
            submission.workflow, None, ttl_seconds, role="job", global_job_id=cluster
        )
        submission.tokens.write(None, minted["token"])
    except HTLeaseError as error:
        say(
            f"the jobs' token lasts {_FIRST_TTL_SECONDS / 60:.0f} min only ({error}); then run "
            f"`htlease token renew {submission.workflow}`"
        )


def _provide(submission: Submission, enrolment: Enrolment, process: int, key: SubjobKey) -> None:
    """Enrol a job's subjob and write the token that is for it alone."""
    enrolment.enroll(key)
    ttl_seconds = submission.token_ttl_seconds
    minted = enrolment.server.mint_token(key.workflow, key.subjob, ttl_seconds)
    submission.tokens.write(process, minted["token"])


def _submit(submission: Submission) -> Answer:
    """Submit and return the answer, or what the queue says in its place; raises SubmitRefused."""
    arguments = (submission.file, submission.appended, submission.options)
    try:
        if submission.is_interactive:
            condor_submit.submit_interactively(*arguments)
            return Answer({}, ())
        return condor_submit.submit(*arguments)
    except SubmitRefused as refusal:
        counts: dict[int, int] = {}
        for job in _jobs_after(refusal, submission):
            counts[job.cluster] = counts.get(job.cluster, 0) + 1
        if not counts:
            raise
        return Answer(counts, (f"{refusal}; but the jobs are in the queue",))


def _jobs_after(refusal: SubmitRefused, submission: Submission) -> list[QueuedJob]:
    """Look whether the jobs are queued although it seems otherwise: the answer may be lost."""
    try:
        return schedd.jobs_of_submission(submission.id, submission.schedd_name)
    except ScheddUnavailable as error:
        raise ScheddUnavailable(
            f"{refusal}; {error}; so whether the jobs were queued is not known: look with "
            f"`condor_q -constraint 'HTLeaseSubmission == \"{submission.id}\"'`, and `htlease "
            f"cancel` the subjobs of {submission.workflow} if there are none"
        ) from refusal


def _queued(submission: Submission, answer: Answer) -> list[QueuedJob]:
    """Return the jobs; an ID is missing where a foreseen one has left the queue already."""
    try:
        found = schedd.jobs_of_submission(submission.id, submission.schedd_name)
    except ScheddUnavailable:
        found = []
    if submission.keys is None or len(answer.job_counts) != 1:
        return found
    ((cluster, count),) = answer.job_counts.items()
    by_process = {job.proc: job for job in found}
    return [
        by_process.get(process) or QueuedJob(cluster, process, None, str(key))
        for process, key in enumerate(_all_keys(submission.keys, by_process, count))
    ]


def _all_keys(
    keys: Sequence[SubjobKey], by_process: dict[int, QueuedJob], count: int
) -> Iterator[str | SubjobKey]:
    for process in range(count):
        if process in by_process:
            yield by_process[process].key
        elif process < len(keys):
            yield keys[process]


def _compare(
    submission: Submission, enrolment: Enrolment, answer: Answer, jobs: list[QueuedJob], say: Say
) -> None:
    """Put right what differs between foreseen and queued; raises InvalidField, Refused."""
    queued = {job: SubjobKey.parse(job.key) for job in jobs}
    check_distinct(tuple(queued.values()))
    if submission.keys is None:
        _enroll_all(enrolment, queued)
        return
    foreseen = dict(enumerate(submission.keys))
    for job, key in queued.items():
        if foreseen.get(job.proc) != key:
            _provide(submission, enrolment, job.proc, key)
            say(f"job {job.cluster}.{job.proc} was not foreseen to be {key}; it has its token now")
    surplus = set(submission.keys) - set(queued.values())
    if surplus:
        left = enrolment.take_back("not submitted after all", surplus)
        names = ", ".join(map(str, sorted(surplus, key=str)))
        say(f"HTCondor made no job for {names}; cancelled")
        for sentence in left:
            say(sentence)


def _enroll_all(enrolment: Enrolment, queued: dict[QueuedJob, SubjobKey]) -> None:
    for job, key in queued.items():
        if job.global_job_id is not None:
            enrolment.enroll(key, job.global_job_id)


def _bind(enrolment: Enrolment, job: QueuedJob, say: Say) -> None:
    if job.global_job_id is None:
        return  # it ran, so its first attempt has told the server
    try:
        enrolment.bind(SubjobKey.parse(job.key), job.global_job_id)
    except HTLeaseError as error:
        say(
            f"{job.key} could not be told its job {job.cluster}.{job.proc} ({error}); harmless, "
            "the job's first attempt tells it"
        )


def _counts(answer: Answer) -> Iterator[str]:
    for cluster, count in answer.job_counts.items():
        yield f"{count} job(s) in cluster {cluster}"


def _label(submission: Submission, server: LeaseServer, text: str, say: Say) -> None:
    """Write down what became of the reservation."""
    try:
        labels = server.workflow_labels(submission.workflow)
        labels[_LABEL + submission.id] = text[:LABEL_MAX_CHARS]
        server.put_workflow(submission.workflow, {"labels": labels})
    except HTLeaseError as error:
        say(f"workflow {submission.workflow} still says `reserved` ({error}); harmless")


def _undo(submission: Submission, enrolment: Enrolment, error: HTLeaseError, say: Say) -> None:
    """Remove the jobs again, and take back what was enrolled for them."""
    try:
        schedd.remove_submission(submission.id, str(error), submission.schedd_name)
    except HTLeaseError as failure:
        say(
            f"the jobs could not be removed ({failure}); run `condor_rm -constraint "
            f"'HTLeaseSubmission == \"{submission.id}\"'`"
        )
        return
    say("the jobs were removed from the queue again")
    _take_back(submission, enrolment, error, say)


def _take_back(
    submission: Submission, enrolment: Enrolment, error: BaseException, say: Say
) -> None:
    """Remove the tokens and cancel what was enrolled, and say what came of it."""
    submission.tokens.remove()
    left = enrolment.take_back(f"not submitted: {error}"[:TEXT_MAX_CHARS])
    for sentence in left:
        say(sentence)
    cancelled = len(enrolment.epochs) - len(left)
    say(f"nothing was submitted; {cancelled} subjob(s) that were enrolled are cancelled")
