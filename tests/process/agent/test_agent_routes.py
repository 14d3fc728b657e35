"""What the agent answers the Job Router's hooks, against a real server and a queue made by hand."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tests.process.agent.test_agent_watcher import MadeQueue, ToldEvidence
from tests.serving import ServerProcess

from htlease.client.client import LeaseServer
from htlease.client.connection import Connection, Credential
from htlease.condor.schedd import Plain
from htlease_agent.peer_credentials import PeerCredentials
from htlease_agent.reconcile.report_end import Reports
from htlease_agent.routed_jobs import Routes
from htlease_agent.workflow_owners import WorkflowOwners

PEER = PeerCredentials(os.getpid(), os.geteuid())


class Route:
    """A source, its copy, and the hooks that are called for them."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        self.server = server
        self.stamp = f"ap-{number}-17/0"
        self.own = f"mine{number}/{number}.0"
        self.copy = f"ap#{number + 1}.0#18"
        self.source: dict[str, Plain] = {
            "GlobalJobId": f"ap#{number}.0#17",
            "HTLeaseKey": self.stamp,
            "ClusterId": number,
            "ProcId": 0,
            "QDate": 17,
            "JobStatus": 2,
            "Owner": "ann",
        }
        token = server.operator_token()
        speaker = LeaseServer.at(Connection(server.url, Credential(token, "test")))
        queue = MadeQueue()
        queue.queued = [self.source]
        reports = Reports(speaker, ToldEvidence())
        self.routes = Routes(speaker, WorkflowOwners(speaker), queue, reports)
        self._named = {
            "job": f"{number}.0",
            "source": self.source["GlobalJobId"],
            "routed_job": f"{number + 1}.0",
            "global_job_id": self.copy,
        }

    def hook(self, step: str) -> dict[str, Any]:
        return self.routes.answer(step, PEER, self._named)

    def run_copy(self, key: str) -> None:
        """Let the copy's wrapper do all that it does, under a key of its choice."""
        named = {"nonce": os.urandom(12).hex()}
        start = {"global_job_id": self.copy, "evidence": {"job_starts": 1, "shadow_starts": 1}}
        fence = self.server.command(key, "acquire", **named, **start)["fence"]
        self.server.command(key, "phases/run/enter", **named, fence=fence)
        self.server.command(key, "phases/run/complete", **named, fence=fence)
        self.server.command(key, "exited", **named, fence=fence, exit_code=0)

    def end(self) -> None:
        self.source.update({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 0})

    def workflows(self) -> list[str]:
        return [one["workflow"] for one in self.server.ask("GET", "workflows")["workflows"]]


@pytest.mark.parametrize("sees_it_run", [True, False])
def test_a_copy_with_a_token_of_its_owners_is_one_subjob_with_its_source(
    server: ServerProcess, sees_it_run: bool
) -> None:
    route = Route(server, 100 + sees_it_run)
    route.source["TransferInput"] = "run.sh, htlease.token"
    assert route.hook("enroll") == route.hook("record") == {"is_to_come": True}
    route.run_copy(route.own)
    if sees_it_run:
        assert "epoch" in route.hook("record")
    route.end()
    assert route.hook("finalize")["state"] == "complete"
    assert server.subjob(route.own)["outcome"] == "complete"
    assert route.stamp.split("/")[0] not in route.workflows()
    (found,) = server.ask("GET", f"subjobs?id=ap%23{route.source['ClusterId']}.0%2317")["subjobs"]
    assert f"{found['workflow']}/{found['subjob']}" == route.own


def test_the_next_copy_is_announced_under_the_key_that_the_first_one_chose(
    server: ServerProcess,
) -> None:
    route = Route(server, 140)
    route.source["TransferInput"] = "htlease.token"
    route.hook("enroll")
    route.run_copy(route.own)
    route.hook("record")
    del route._named["global_job_id"]
    assert route.hook("enroll")["epoch"] == 2


def test_a_copy_that_chose_another_key_leaves_its_stamp_cancelled(server: ServerProcess) -> None:
    route = Route(server, 110)
    assert "epoch" in route.hook("enroll")
    route.run_copy(route.own)
    route.end()
    assert route.hook("finalize")["state"] == "complete"
    assert server.subjob(route.stamp)["outcome"] == "cancelled"


def test_a_copy_under_the_stamp_is_closed_when_its_source_has_ended(server: ServerProcess) -> None:
    route = Route(server, 120)
    route.hook("enroll")
    route.run_copy(route.stamp)
    route.hook("record")
    route.end()
    assert route.hook("finalize")["state"] == "complete"


def test_a_key_in_the_environment_is_the_copys(server: ServerProcess) -> None:
    route = Route(server, 130)
    route.source["Environment"] = f"HTLEASE_KEY={route.own}"
    assert "epoch" in route.hook("enroll")
    route.run_copy(route.own)
    route.hook("record")
    route.end()
    assert route.hook("finalize")["state"] == "complete"
    assert route.stamp.split("/")[0] not in route.workflows()
