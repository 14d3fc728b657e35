"""The agent's looks at queue and history, against a real server and a queue made by hand."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.process.execution import wait_for
from tests.serving import ServerProcess

from htlease.client.client import LeaseServer
from htlease.client.connection import Connection, Credential
from htlease.condor.schedd import Plain
from htlease.errors import BadConfig, ServerUnavailable
from htlease.rules.end_proof import Finding
from htlease.wire.transport import HttpTransport
from htlease_agent.proxy.networkless_leases import NetworklessLeases
from htlease_agent.queue_reader import QueueReader
from htlease_agent.reconcile.job_end import End
from htlease_agent.reconcile.queue_watcher import QueueWatcher
from htlease_agent.reconcile.report_end import Reports
from htlease_agent.workflow_owners import WorkflowOwners

_NUMBERS = itertools.count(1)


class MadeQueue(QueueReader):
    """What has ended: in the queue still, and in the history, the last one first."""

    def __init__(self) -> None:
        super().__init__(None)
        self.queued: list[dict[str, Plain]] = []
        self.history: list[dict[str, Plain]] = []
        self.asked_until: list[str | None] = []
        self.born_at: int | None = 1796100000

    def birthdate(self) -> int | None:
        return self.born_at

    def read_jobs(self, constraint: str, attributes: Sequence[str]) -> list[dict[str, Plain]]:
        return self.queued

    def read_history(
        self, constraint: str, attributes: Sequence[str], until: str | None, most: int
    ) -> list[dict[str, Plain]]:
        found = []
        for ad in self.history:
            if until == f'GlobalJobId == "{ad["GlobalJobId"]}"':
                break
            found.append(ad)
        if most < 0:
            self.asked_until.append(until)
        return found if most < 0 else found[:most]


class ToldEvidence:
    """What event log and startd would say of every start."""

    def __init__(self) -> None:
        self.is_proof = True

    def finding(self, end: End) -> Finding:
        return Finding(self.is_proof, "the startd was asked")


class Agent:
    """A watcher and its queue."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.queue = MadeQueue()
        self.evidence = ToldEvidence()
        self.start()

    def start(self) -> None:
        """Start, as after a crash."""
        token = self.server.operator_token()
        speaker = LeaseServer.at(Connection(self.server.url, Credential(token, "test")))
        transport = HttpTransport(self.server.url, token, via="chirp ap")
        chirp = NetworklessLeases(transport, self.directory / "starts", 60.0)
        reports = Reports(speaker, self.evidence)
        self.watcher = QueueWatcher(reports, self.queue, self.directory, 1.0, chirp)

    def ended(self, job: str, key: str, **changes: Plain) -> dict[str, Plain]:
        """Put a job that ended well into the history."""
        ad: dict[str, Plain] = {
            "GlobalJobId": job,
            "HTLeaseKey": key,
            "JobStatus": 4,
            "NumJobStarts": 1,
            "NumShadowStarts": 1,
            "ExitBySignal": False,
            "ExitCode": 0,
            **changes,
        }
        self.queue.history.insert(0, ad)
        return ad

    def acquire(self, job: str, key: str, ttl_seconds: float = 60, shadow_starts: int = 1) -> None:
        self.server.command(
            key,
            "acquire",
            nonce=os.urandom(8).hex(),
            global_job_id=job,
            evidence={"job_starts": 1, "shadow_starts": shadow_starts},
            ttl_seconds=ttl_seconds,
        )

    def wait_lapsed(self, key: str) -> None:
        wait_for(lambda: self.server.subjob(key)["status"] == "lapsed", f"{key} to lapse")

    def outcome(self, key: str) -> str | None:
        outcome: str | None = self.server.subjob(key)["outcome"]
        return outcome


@pytest.fixture
def agent(server: ServerProcess, tmp_path: Path) -> Agent:
    return Agent(server, tmp_path / "state")


@pytest.fixture
def job() -> tuple[str, str]:
    number = next(_NUMBERS)
    # Of a schedd that no other module names: the server is shared, and jobs are found by their ID.
    return f"watched-ap#{number}.0#1795225431", f"watched/s{number}"


def test_an_end_is_reported_and_closed_once(agent: Agent, job: tuple[str, str]) -> None:
    agent.acquire(*job)
    agent.ended(*job)
    agent.watcher.look()
    assert agent.outcome(job[1]) == "complete"
    before = agent.server.history(job[1])
    agent.watcher.look()
    (agent.directory / "watcher.json").unlink()  # the whole history is looked at again
    agent.start()
    agent.watcher.look()
    assert agent.server.history(job[1]) == before


def test_a_look_goes_on_where_the_last_one_ended(agent: Agent, job: tuple[str, str]) -> None:
    agent.ended(*job)
    agent.watcher.look()
    agent.ended("ap#999.0#1", "watched/later")
    agent.start()
    agent.watcher.look()
    assert agent.queue.asked_until[-1] == f'GlobalJobId == "{job[0]}"'


def test_the_end_of_a_job_that_chose_its_workflow_itself_is_found_by_its_id(
    agent: Agent, job: tuple[str, str]
) -> None:
    """`QDate`, of which the stamp is made, may be a second before the time in `GlobalJobId`."""
    agent.acquire(*job)
    cluster = job[0].split("#")[1].partition(".")[0]
    place = {"ClusterId": int(cluster), "ProcId": 0, "QDate": 1795225430}
    agent.ended(job[0], f"watched-ap-{cluster}-1795225430/0", **place)
    agent.watcher.look()
    assert agent.outcome(job[1]) == "complete"


def test_an_end_waits_for_a_lease_that_is_live_and_over_a_crash(
    agent: Agent, job: tuple[str, str]
) -> None:
    """The last start is not the holder's: nobody saw that one end."""
    agent.acquire(*job, ttl_seconds=2, shadow_starts=5)
    agent.ended(*job, ExitCode=3)
    agent.watcher.look()
    assert agent.outcome(job[1]) is None
    agent.start()
    assert list(json.loads((agent.directory / "watcher.json").read_text())["waiting"]) == [job[0]]
    agent.wait_lapsed(job[1])
    agent.watcher.look()
    assert agent.outcome(job[1]) == "failed"
    assert not json.loads((agent.directory / "watcher.json").read_text())["waiting"]


def test_with_the_server_away_nothing_is_forgotten(
    own_server: ServerProcess, tmp_path: Path, job: tuple[str, str]
) -> None:
    agent = Agent(own_server, tmp_path / "state")
    agent.acquire(*job)
    agent.ended(*job)
    own_server.stop()
    with pytest.raises(ServerUnavailable):
        agent.watcher.look()
    own_server.start()
    agent.start()
    agent.watcher.look()
    assert agent.outcome(job[1]) == "complete"


def test_a_job_of_which_there_is_no_record_is_left_alone(
    agent: Agent, job: tuple[str, str]
) -> None:
    agent.acquire(*job)
    before = agent.server.history(job[1])
    agent.watcher.look()
    assert agent.server.history(job[1]) == before


def test_the_end_of_an_earlier_submission_does_not_touch_a_later_one(
    agent: Agent, job: tuple[str, str]
) -> None:
    agent.acquire(*job, ttl_seconds=1)
    agent.wait_lapsed(job[1])
    agent.acquire("ap#777.0#1795225499", job[1])
    before = agent.server.history(job[1])
    agent.ended(*job, ExitCode=1)
    agent.watcher.look()
    assert agent.server.history(job[1]) == before


@pytest.mark.parametrize(
    "changes", [{"JobStatus": 3, "RemoveReason": "via condor_rm (by user ann)"}, {"ExitCode": 0}]
)
def test_without_proof_an_end_is_a_remark_and_the_lease_runs_out(
    agent: Agent, job: tuple[str, str], changes: dict[str, Any]
) -> None:
    agent.evidence.is_proof = False
    agent.acquire(*job, ttl_seconds=1.5)
    agent.ended(*job, **changes)
    for _ in range(2):
        agent.watcher.look()
    names = [event["event"] for event in agent.server.history(job[1])]
    remark = "job-removed" if "JobStatus" in changes else "job-ended"
    assert names.count(remark) == 1
    assert "attempt-exited" not in names
    assert agent.server.subjob(job[1])["status"] == "active"
    agent.wait_lapsed(job[1])
    agent.watcher.look()
    assert agent.outcome(job[1]) in ("cancelled", "complete")


def test_an_end_that_an_earlier_version_wrote_down_is_read(agent: Agent) -> None:
    end = {
        "global_job_id": "ap#8.0#1",
        "key": "watched/old",
        "status": 4,
        "job_starts": 1,
        "shadow_starts": 1,
        "exit_code": 0,
        "exit_signal": None,
        "queue_reason": "",
        "is_routed_copy": False,
        "may_be_alive": False,
    }
    waiting = {"ap#8.0#1": {"end": end, "since": 1.0}}
    (agent.directory / "watcher.json").write_text(json.dumps({"since": None, "waiting": waiting}))
    agent.start()
    agent.watcher.look()


def test_a_lost_job_queue_is_said_once_and_remembered(
    agent: Agent, job: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    agent.acquire(*job)
    agent.watcher.look()
    assert warnings() == []
    agent.start()  # and what it saw before it crashed it knows
    agent.queue.born_at = None
    agent.watcher.look()
    agent.queue.born_at = 1796200000
    agent.watcher.look()
    agent.watcher.look()
    [said] = warnings()
    assert "JobQueueBirthdate 1796200000, was 1796100000" in said
    assert agent.server.subjob(job[1])["status"] == "active"


def test_an_ended_job_that_stays_in_the_queue_is_reported_once(
    agent: Agent, job: tuple[str, str]
) -> None:
    agent.acquire(*job)
    ad = agent.ended(*job)
    agent.queue.history, agent.queue.queued = [], [ad]
    agent.watcher.look()
    assert agent.outcome(job[1]) == "complete"
    before = agent.server.history(job[1])
    agent.watcher.look()
    agent.queue.history, agent.queue.queued = [ad], []
    agent.watcher.look()
    assert agent.server.history(job[1]) == before


@pytest.mark.parametrize("key", ["no slash", "a/b/c", "never/heard-of", "/"])
def test_a_key_that_the_server_does_not_know_stops_nothing(
    agent: Agent, job: tuple[str, str], key: str
) -> None:
    agent.acquire(*job)
    agent.ended("ap#888.0#1795225400", key)
    agent.ended(*job)
    agent.watcher.look()
    assert agent.outcome(job[1]) == "complete"


def test_a_state_file_that_cannot_be_read_is_named(agent: Agent) -> None:
    (agent.directory / "watcher.json").write_text("{")
    with pytest.raises(BadConfig, match=r"watcher\.json.*remove it"):
        agent.start()


def test_a_workflow_stays_with_its_first_owner(server: ServerProcess) -> None:
    def owners() -> WorkflowOwners:
        credential = Credential(server.operator_token(), "test")
        return WorkflowOwners(LeaseServer.at(Connection(server.url, credential)))

    owners().claim("owned", "alice@a.org")
    owners().claim("owned", "alice@a.org")
    with pytest.raises(Exception, match=r"belongs to alice@a\.org; bob@a\.org has to"):
        owners().claim("owned", "bob@a.org")
    assert server.ask("GET", "workflows/owned")["labels"] == {"owner": "alice@a.org"}


def test_a_hold_and_its_release_are_seen(agent: Agent, job: tuple[str, str]) -> None:
    agent.acquire(*job)
    held: dict[str, Plain] = {
        "GlobalJobId": job[0],
        "HTLeaseKey": job[1],
        "JobStatus": 5,
        "HoldReason": "quota (by user ann)",
        "HoldReasonCode": 1,
        "HoldReasonSubCode": 0,
    }
    agent.queue.queued = [held]
    for _ in range(2):
        agent.watcher.look()
    hold = agent.server.subjob(job[1])["job_hold"]
    assert (hold["by"], hold["code"], hold["reason"]) == ("user", 1, "quota (by user ann)")
    assert agent.server.subjob(job[1])["status"] == "active", "it may run on for a while"
    agent.queue.queued = [{**held, "JobStatus": 1}]
    agent.watcher.look()
    assert agent.server.subjob(job[1])["job_hold"] is None
    names = [event["event"] for event in agent.server.history(job[1])]
    assert (names.count("job-held"), names.count("job-released")) == (1, 1)


def _held_with_stamp(job: str, **changes: Plain) -> dict[str, Plain]:
    cluster, qdate = 4711, 1795225400
    return {
        "GlobalJobId": job,
        "HTLeaseKey": f"ap-{cluster}-{qdate}/0",
        "ClusterId": cluster,
        "ProcId": 0,
        "QDate": qdate,
        "JobStatus": 5,
        "HoldReason": "quota (by user ann)",
        "HoldReasonCode": 1,
        **changes,
    }


@pytest.mark.parametrize("named", ["by its token or option", "in its environment"])
def test_a_hold_and_its_release_are_seen_under_the_key_that_the_job_chose(
    agent: Agent, job: tuple[str, str], named: str
) -> None:
    agent.acquire(*job)
    held = _held_with_stamp(job[0])
    if "environment" in named:
        held["Environment"] = f"A=1 HTLEASE_KEY={job[1]}"
    agent.queue.queued = [held]
    agent.watcher.look()
    assert agent.server.subjob(job[1])["job_hold"]["reason"] == "quota (by user ann)"
    agent.queue.queued = [{**held, "JobStatus": 1}]
    agent.watcher.look()
    assert agent.server.subjob(job[1])["job_hold"] is None
    of = str(held["HTLeaseKey"]).partition("/")[0]
    names = [one["workflow"] for one in agent.server.ask("GET", "workflows")["workflows"]]
    assert of not in names, "the stamp leaves no trace"


def test_a_hold_before_the_first_start_stops_nothing(agent: Agent, job: tuple[str, str]) -> None:
    agent.acquire(*job)
    agent.queue.queued = [_held_with_stamp("ap#4711.0#1795225400")]
    agent.ended(*job)
    agent.watcher.look()
    assert agent.outcome(job[1]) == "complete"
