"""Whatever breaks on the way, a submission is whole, taken back, or said to be unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htlease.condor import bindings_process as schedd
from htlease.condor.schedd import QueuedJob, ScheddUnavailable
from htlease.errors import InvalidField, Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_cli.operate.token_renewal import queued_tokens
from htlease_cli.submit import condor_submit
from htlease_cli.submit.condor_submit import Answer, SubmitRefused
from htlease_cli.submit.enrolment import check_distinct
from htlease_cli.submit.submit_command import default_workflow
from htlease_cli.submit.token_files import TokenFiles, cluster_of, remove_expired
from htlease_cli.submit.transaction import Submission, carry_out, is_of_refused_submissions

KEYS = tuple(SubjobKey("w", str(process)) for process in range(3))
JOBS = [QueuedJob(7, process, f"ap#7.{process}#1", f"w/{process}") for process in range(3)]


class Server:
    """Answers enrolment and tokens; breaks when `breaks` says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, m.Command]] = []
        self.epochs: dict[SubjobKey, int] = {}
        self.documents: dict[SubjobKey, dict[str, Any]] = {}
        self.breaks: Callable[[SubjobKey, m.Command], Exception | None] = lambda *_: None
        self.labels: dict[str, str] = {}

    def command(self, key: SubjobKey, command: m.Command, field: str = "") -> dict[str, Any]:
        error = self.breaks(key, command)
        if error:
            raise error
        self.sent.append((str(key), command))
        return {"epoch": self.epochs.get(key, 1)}

    def workflow_labels(self, name: str) -> dict[str, str]:
        return dict(self.labels)

    def put_workflow(self, name: str, fields: dict[str, Any]) -> None:
        self.labels = fields["labels"]

    def subjob(self, key: SubjobKey) -> dict[str, Any]:
        return self.documents[key]

    def mint_token(
        self,
        workflow: str,
        subjob: str | None,
        ttl_seconds: float,
        role: str | None = None,
        global_job_id: str | None = None,
    ) -> dict[str, Any]:
        assert (subjob is None) == (role == "job")
        who = subjob or global_job_id
        return {"token": f"token of {workflow}/{who} for {ttl_seconds:g}"}

    def cancelled(self) -> list[str]:
        return [key for key, command in self.sent if isinstance(command, m.Cancel)]


class Queue:
    """What stands in for the schedd: what it answers, and what it was asked."""

    def __init__(self) -> None:
        self.refusal: BaseException | None = None
        self.jobs: list[QueuedJob] | Exception = JOBS
        self.submitted = 0
        self.job_counts = {7: 3}
        self.removed: list[str] = []


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()

    def submit(file: Path, appended: str, options: tuple[str, ...]) -> Answer:
        queue.submitted += 1
        if queue.refusal:
            raise queue.refusal
        return Answer(queue.job_counts, ())

    def jobs(submission_id: str, name: str | None) -> list[QueuedJob]:
        if isinstance(queue.jobs, Exception):
            raise queue.jobs
        return queue.jobs

    monkeypatch.setattr(condor_submit, "find", lambda: "/usr/bin/condor_submit")
    monkeypatch.setattr(schedd, "locate", lambda name: None)
    monkeypatch.setattr(condor_submit, "submit", submit)
    monkeypatch.setattr(
        schedd, "remove_submission", lambda mark, reason, name: queue.removed.append(reason)
    )
    monkeypatch.setattr(schedd, "jobs_of_submission", jobs)
    return queue


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    tokens = TokenFiles.of(tmp_path, "abc", 100.0)
    file = Path("a.sub")
    return Submission("abc", file, "x = 1\n", (), "w", KEYS, None, tokens, 60.0, None, force=False)


def carried_out(
    submission: Submission, server: Server
) -> tuple[list[QueuedJob] | Exception, list[str]]:
    said: list[str] = []
    try:
        return carry_out(submission, server, said.append).jobs, said  # type: ignore[arg-type]
    except Exception as error:
        return error, said


def token_files(submission: Submission) -> list[Path]:
    return sorted(submission.tokens.directory.glob("*/htlease.token"))


def test_every_job_is_enrolled_gets_its_token_and_is_bound(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    jobs, said = carried_out(submission, server)
    assert jobs == JOBS and said == []
    bound = [command.global_job_id for _, command in server.sent if isinstance(command, m.Enroll)]
    assert bound == [None, None, None, "ap#7.0#1", "ap#7.1#1", "ap#7.2#1"]
    assert [path.read_text() for path in token_files(submission)] == [
        f"token of w/{process} for 60\n" for process in range(3)
    ]


def test_a_server_that_goes_away_half_way_takes_back_what_it_can(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    server.breaks = lambda key, command: ServerUnavailable("gone") if key == KEYS[2] else None
    error, said = carried_out(submission, server)
    assert isinstance(error, ServerUnavailable)
    assert queue.submitted == 0
    assert server.cancelled() == ["w/0", "w/1"]
    assert said == ["nothing was submitted; 2 subjob(s) that were enrolled are cancelled"]
    assert token_files(submission) == []


def test_an_interrupt_while_enrolling_takes_back(submission: Submission, queue: Queue) -> None:
    server = Server()

    def interrupted(key: SubjobKey, command: m.Command) -> None:
        if key == KEYS[1] and isinstance(command, m.Enroll):
            raise KeyboardInterrupt

    server.breaks = interrupted
    with pytest.raises(KeyboardInterrupt):
        carried_out(submission, server)
    assert queue.submitted == 0 and server.cancelled() == ["w/0"]
    assert server.labels == {"submission-abc": "not submitted: KeyboardInterrupt"}


def test_an_interrupt_while_queueing_leaves_what_the_jobs_would_need(
    submission: Submission, queue: Queue
) -> None:
    queue.refusal = KeyboardInterrupt()
    server = Server()
    with pytest.raises(KeyboardInterrupt):
        carried_out(submission, server)
    assert server.cancelled() == [] and len(token_files(submission)) == 3


def test_what_cannot_even_be_cancelled_is_named(submission: Submission, queue: Queue) -> None:
    server = Server()
    server.breaks = lambda key, command: (
        ServerUnavailable("gone") if key == KEYS[2] or isinstance(command, m.Cancel) else None
    )
    _, said = carried_out(submission, server)
    assert said[0].startswith("w/0 could not be cancelled: gone")


def test_a_refused_queue_cancels_only_what_nobody_else_has(
    submission: Submission, queue: Queue
) -> None:
    queue.refusal, queue.jobs = SubmitRefused("owner may not"), []
    server = Server()
    server.epochs = {KEYS[0]: 2, KEYS[1]: 2}
    server.documents = {KEYS[0]: {"status": "active"}, KEYS[1]: {"status": "waiting"}}
    error, said = carried_out(submission, server)
    assert error is queue.refusal
    assert server.cancelled() == ["w/1", "w/2"]
    assert said[0] == "w/0 stays active: an earlier submission has it"
    assert token_files(submission) == []


@pytest.mark.parametrize(
    ("labels", "counts", "is_refused"),
    [
        ({"submission-a": "not submitted: no"}, {}, True),
        ({"submission-a": "not submitted: no", "who": "me"}, {"cancelled": 3}, True),
        ({"submission-a": "not submitted: no"}, {"complete": 1, "cancelled": 3}, False),
        ({"submission-a": "not submitted: no", "submission-b": "reserved"}, {}, False),
        ({"submission-a": "3 job(s) in cluster 7"}, {"cancelled": 3}, False),
        ({}, {}, False),
    ],
)
def test_a_workflow_of_which_nothing_was_submitted_is_known(
    labels: dict[str, str], counts: dict[str, int], is_refused: bool
) -> None:
    assert is_of_refused_submissions({"labels": labels, "counts": counts}) is is_refused


def test_a_lost_answer_is_looked_up_and_the_jobs_are_kept(
    submission: Submission, queue: Queue
) -> None:
    queue.refusal = SubmitRefused("connection reset")
    server = Server()
    jobs, said = carried_out(submission, server)
    assert jobs == JOBS and server.cancelled() == []
    assert said == ["connection reset; but the jobs are in the queue"]
    assert queue.submitted == 1 and len(token_files(submission)) == 3


def test_jobs_that_left_the_queue_at_once_are_submitted_all_the_same(
    submission: Submission, queue: Queue
) -> None:
    queue.jobs = JOBS[1:]
    jobs, said = carried_out(submission, Server())
    assert jobs == [QueuedJob(7, 0, None, "w/0"), *JOBS[1:]] and said == []


def test_a_schedd_too_busy_to_be_asked_back_has_the_jobs(
    submission: Submission, queue: Queue
) -> None:
    queue.jobs = ScheddUnavailable("busy")
    jobs, said = carried_out(submission, Server())
    assert jobs == [QueuedJob(7, process, None, f"w/{process}") for process in range(3)]
    assert said == [] and len(token_files(submission)) == 3


def test_when_nobody_knows_whether_it_was_queued_nothing_is_cancelled(
    submission: Submission, queue: Queue
) -> None:
    queue.refusal = SubmitRefused("connection reset")
    queue.jobs = ScheddUnavailable("the schedd does not answer")
    server = Server()
    error, _ = carried_out(submission, server)
    assert isinstance(error, ScheddUnavailable)
    assert "is not known: look with `condor_q -constraint 'HTLeaseSubmission" in str(error)
    assert server.cancelled() == [] and len(token_files(submission)) == 3


def test_a_binding_that_fails_is_harmless_and_told(submission: Submission, queue: Queue) -> None:
    server = Server()
    server.breaks = lambda key, command: (
        ServerUnavailable("gone")
        if isinstance(command, m.Enroll) and command.global_job_id
        else None
    )
    jobs, said = carried_out(submission, server)
    assert jobs == JOBS and server.cancelled() == []
    assert len(said) == 3 and "harmless" in said[0]


@pytest.mark.parametrize(
    ("outcome", "attempts", "is_run"),
    [("cancelled", 0, True), ("cancelled", 1, False), ("complete", 0, False)],
)
def test_only_what_was_cancelled_before_any_attempt_runs_again_unforced(
    submission: Submission, queue: Queue, outcome: str, attempts: int, is_run: bool
) -> None:
    server = Server()
    server.documents = {KEYS[1]: {"attempt_number": attempts, "status": outcome}}
    server.breaks = lambda key, command: (
        Refused("subjob-closed", "closed", outcome=outcome)
        if key == KEYS[1] and isinstance(command, m.Enroll) and not command.force
        and command.global_job_id is None
        else None
    )  # fmt: skip
    result, _ = carried_out(submission, server)
    assert (result == JOBS) is is_run
    if not is_run:
        assert f"w/1 is {outcome}; `htlease submit --force` runs it again" in str(result)
        assert server.cancelled() == ["w/0"]


def test_the_reservation_is_recorded_first_and_says_what_became_of_it(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    queue.refusal = SubmitRefused("no")
    queue.jobs = []
    carried_out(submission, server)
    assert server.labels == {"submission-abc": "not submitted: no"}
    queue.refusal, queue.jobs = None, JOBS
    carried_out(submission, server)
    assert server.labels == {"submission-abc": "3 job(s) in cluster 7"}


def test_a_job_that_htcondor_does_not_run_is_named(submission: Submission, queue: Queue) -> None:
    queue.jobs = [replace(job, is_noop=job.proc == 1) for job in JOBS]
    _, said = carried_out(submission, Server())
    assert len(said) == 1 and "`htlease settle w/1 --outcome complete`" in said[0]


def test_jobs_that_were_not_foreseen_get_their_tokens_at_once(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    queue.jobs = [*JOBS[:2], QueuedJob(7, 2, "ap#7.2#1", "w/c"), QueuedJob(7, 3, "ap#7.3#1", "w/3")]
    queue.job_counts = {7: 4}
    jobs, said = carried_out(submission, server)
    assert jobs == queue.jobs
    assert [path.read_text() for path in token_files(submission)] == [
        f"token of w/{name} for 60\n" for name in "01c3"
    ]
    assert said == [
        "job 7.2 was not foreseen to be w/c; it has its token now",
        "job 7.3 was not foreseen to be w/3; it has its token now",
        "HTCondor made no job for w/2; cancelled",
    ]
    assert server.cancelled() == ["w/2"]


def test_what_was_foreseen_and_never_came_is_cancelled(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    queue.jobs, queue.job_counts = JOBS[:2], {7: 2}
    jobs, said = carried_out(submission, server)
    assert jobs == JOBS[:2] and server.cancelled() == ["w/2"]
    assert said == ["HTCondor made no job for w/2; cancelled"]


def test_without_foresight_all_jobs_share_a_token_and_are_enrolled_afterwards(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    jobs, said = carried_out(replace(submission, keys=None), server)
    assert jobs == JOBS and said == []
    token = submission.tokens.directory / "htlease.token"
    assert token.read_text() == "token of w/ap#7.* for 60\n"
    enrolled = {key for key, command in server.sent if isinstance(command, m.Enroll)}
    assert enrolled == {"w/0", "w/1", "w/2"}


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ((), "token of w/None for 3600\n", "token of w/ap#7.* for 86400\n"),
        # A copy of it goes into the spool at once.
        (("-spool",), "token of w/None for 86400\n", "token of w/None for 86400\n"),
    ],
)
def test_a_shared_token_is_for_any_job_only_until_the_cluster_is_known(
    submission: Submission,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    first: str,
    last: str,
) -> None:
    token = submission.tokens.directory / "htlease.token"
    seen = []

    def submit(*_: object) -> Answer:
        seen.append(token.read_text())
        return Answer({7: 3}, ())

    monkeypatch.setattr(condor_submit, "submit", submit)
    shared = replace(submission, keys=None, options=options, token_ttl_seconds=86400.0)
    carried_out(shared, Server())
    assert (seen, token.read_text()) == ([first], last)


def test_the_mark_of_a_cluster_is_that_of_all_its_jobs() -> None:
    assert cluster_of(["a#b@c.org#7.0#1", "a#b@c.org#7.12#1"]) == "a#b@c.org#7.*"
    assert cluster_of(["ap#7.0#1", "ap#8.0#1"]) is None
    assert cluster_of(["other"]) is None and cluster_of([]) is None


def test_two_jobs_that_turn_out_to_have_one_key_are_removed_again(
    submission: Submission, queue: Queue
) -> None:
    server = Server()
    queue.jobs = [JOBS[0], QueuedJob(7, 1, "ap#7.1#1", "w/0")]
    error, said = carried_out(replace(submission, keys=None), server)
    assert isinstance(error, InvalidField) and queue.removed == [str(error)]
    assert said[0] == "the jobs were removed from the queue again"


def test_two_jobs_for_one_subjob_are_refused_by_number() -> None:
    with pytest.raises(InvalidField, match="jobs 0 and 2 of this file are both w/0"):
        check_distinct([KEYS[0], KEYS[1], KEYS[0]])


def test_token_files_are_the_owners_alone_and_go_when_they_have_expired(tmp_path: Path) -> None:
    old = TokenFiles.of(tmp_path, "old", 100.0)
    new = TokenFiles.of(tmp_path, "new", 300.0)
    old.write(0, "t")
    new.write(0, "t")
    file = new.directory / "0" / "htlease.token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    remove_expired(tmp_path, 200.0, lambda name: set())
    assert not old.directory.exists() and file.exists()


def test_token_files_of_jobs_in_the_queue_stay_for_their_renewal(tmp_path: Path) -> None:
    made = {name: TokenFiles.of(tmp_path, name, 100.0) for name in ("gone", "here", "away")}
    for files in made.values():
        files.write(None, "t")
    made["away"].note_schedd("ap2")
    asked = []

    def queued_at(schedd_name: str | None) -> set[str] | None:
        asked.append(schedd_name)
        return None if schedd_name else {"here"}

    remove_expired(tmp_path, 200.0, queued_at)
    assert {name for name, files in made.items() if files.directory.exists()} == {"here", "away"}
    assert set(asked) == {None, "ap2"}


def test_queued_jobs_are_grouped_by_the_token_that_they_take_along() -> None:
    def ad(process: int, path: str, **more: object) -> dict[str, Any]:
        return {
            "ClusterId": 7,
            "ProcId": process,
            "GlobalJobId": f"ap#7.{process}#1",
            "HTLeaseKey": f"w/s{process}",
            "HTLeaseTokenFile": path,
            **more,
        }

    ads = [
        ad(0, "/t/1-a/0/htlease.token"),
        ad(1, "/t/1-b/htlease.token"),
        ad(2, "/t/1-b/htlease.token"),
        ad(3, "/t/1-c/htlease.token"),
        ad(4, "/etc/shadow"),
        ad(5, "htlease.token"),
        ad(6, "/t/1-d/htlease.token", StageInFinish=1),
        ad(7, "/t/1-e/7/htlease.token", HTLeaseKey="none"),
    ]
    found = [
        (one.subjob, one.cluster, one.jobs, str(one.files.directory)) for one in queued_tokens(ads)
    ]
    assert found == [
        ("s0", None, ("7.0",), "/t/1-a"),
        (None, "ap#7.*", ("7.1", "7.2"), "/t/1-b"),
        (None, "ap#7.*", ("7.3",), "/t/1-c"),
    ]


def test_a_workflow_is_named_after_file_and_time() -> None:
    assert default_workflow("my job", 1795232712.0, "beef00") == "my-job-20261121-0345-beef"
