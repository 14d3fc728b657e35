"""Leases that the agent keeps for starts without network, against a real server.

The queue is made by hand here; `tests/pool/test_agent.py` has a real one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.serving import ServerProcess

from htlease.condor.schedd import Plain
from htlease.errors import Refused, ServerUnavailable
from htlease.rules.attempt import SubjobKey
from htlease.wire.chirp_journal import PARTS, Entry, Journal, to_attributes, unpack
from htlease.wire.transport import HttpTransport
from htlease_agent.proxy.networkless_leases import NetworklessLeases
from htlease_agent.queue_reader import QueueReader

_NUMBERS = itertools.count(1)
AT = "2026-01-01T00:00:00Z"


class MadeQueue(QueueReader):
    """A queue of one job."""

    def __init__(self, ad: dict[str, Plain] | None) -> None:
        super().__init__(None)
        self.ad = ad

    def birthdate(self) -> int | None:
        return 1796100000

    def read_jobs(self, constraint: str, attributes: Sequence[str]) -> list[dict[str, Plain]]:
        return [] if self.ad is None else [self.ad]

    def read_history(
        self, constraint: str, attributes: Sequence[str], until: str | None, most: int
    ) -> list[dict[str, Plain]]:
        return self.read_jobs(constraint, attributes)


class Desk:
    """An agent's starts and one job."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        number = next(_NUMBERS)
        self.server = server
        self.directory = directory
        self.key = f"chirped/s{number}"
        self.job = f"ap#{number}.0#1795225431"
        self.ad: dict[str, Plain] = {
            "GlobalJobId": self.job,
            "ClusterId": number,
            "ProcId": 0,
            "JobStatus": 2,
            "NumJobStarts": 0,
            "NumShadowStarts": 1,
            "JobCurrentStartDate": 1000,
            "RemoteHost": "slot1_1@ep1",
            "PublicClaimId": "<10.0.0.1:9618>#1795225000#1#...",
        }
        self.starts = self.new_starts()

    def new_starts(self) -> NetworklessLeases:
        transport = HttpTransport(
            self.server.url, self.server.operator_token(), via="chirp ap (agent)"
        )
        return NetworklessLeases(transport, self.directory, 60.0)

    def begin(self) -> int:
        grant = unpack(self.starts.begin(SubjobKey.parse(self.key), self.ad))
        assert "nonce" not in grant
        fence: int = grant["fence"]
        return fence

    def write(self, fence: int, *calls: tuple[str, str | None, dict[str, object]]) -> None:
        entries = [
            Entry(number, call, phase, AT, fields)
            for number, (call, phase, fields) in enumerate(calls, 1)
        ]
        self.ad.update(to_attributes(Journal(fence, tuple(entries))))

    def look(self) -> None:
        self.starts.look(MadeQueue(self.ad))

    def names(self) -> list[str]:
        return [event["event"] for event in self.server.history(self.key)]

    def next_start(self) -> None:
        self.ad.update(
            NumShadowStarts=2, NumJobStarts=1, JobCurrentStartDate=2000, RemoteHost="slot1_2@ep2"
        )


@pytest.fixture
def desk(server: ServerProcess, tmp_path: Path) -> Desk:
    return Desk(server, tmp_path / "starts")


def test_a_flag_holds_a_start_back_before_anything_is_recorded(desk: Desk) -> None:
    desk.key = "chirp-flagged/s"
    plan = {"phases": [{"name": "fetch", "needs": ["hpss-chirp"]}, {"name": "push"}]}
    desk.server.ask("PUT", "workflows/chirp-flagged", {"request_id": "plan", "plan": plan})
    desk.server.ask("PUT", "flags/hpss-chirp", {"is_up": False, "reason": "tape robot"})
    with pytest.raises(Refused, match="fetch needs hpss-chirp, which is down") as refused:
        desk.begin()
    assert refused.value.code == "blocked"
    assert not list(desk.directory.iterdir()), "nothing is kept of such a start"
    desk.server.ask("PUT", "flags/hpss-chirp", {"is_up": True})
    assert desk.begin() == 1


RAN: tuple[tuple[str, str | None, dict[str, object]], ...] = (
    ("acquire", None, {"plan": {"phases": [{"name": "a"}, {"name": "b"}]}}),
    ("enter", "a", {}),
    ("complete", "a", {"artifacts": {"x": "y"}}),
    ("renew", None, {"details": "half"}),
    ("enter", "b", {}),
)


def test_a_journal_is_posted_in_order_and_once(desk: Desk) -> None:
    fence = desk.begin()
    desk.write(fence, *RAN)
    desk.look()
    names = desk.names()
    assert names[1:] == [
        *("lease-acquired", "plan-changed", "phase-entered", "phase-completed"),
        *("details-saved", "phase-entered"),
    ]
    desk.look()
    assert desk.names() == names
    desk.write(fence, *RAN, ("complete", "b", {}), ("exited", None, {"exit_code": 0}))
    desk.look()
    assert desk.names() == [*names, "phase-completed", "attempt-exited"]
    assert {event["via"] for event in desk.server.history(desk.key)} == {"chirp ap (agent)"}


def test_a_journal_posted_before_a_crash_is_not_posted_twice(desk: Desk) -> None:
    fence = desk.begin()
    saved = {path: path.read_bytes() for path in desk.directory.glob("*.json")}
    desk.write(fence, *RAN)
    desk.look()
    names = desk.names()
    for path, content in saved.items():
        path.write_bytes(content)  # the crash came before anything was written
    desk.starts = desk.new_starts()
    desk.look()
    assert [name for name in desk.names() if name != "lease-renewed"] == names


def test_the_hook_that_asks_again_gets_the_same_lease(desk: Desk) -> None:
    fence = desk.begin()
    desk.starts = desk.new_starts()
    assert desk.begin() == fence
    assert desk.names().count("lease-acquired") == 1


def test_nonces_lie_in_files_that_only_the_agent_reads(desk: Desk) -> None:
    desk.begin()
    modes = [path.stat().st_mode & 0o777 for path in desk.directory.glob("*.json")]
    assert modes == [0o600] and desk.directory.stat().st_mode & 0o777 == 0o700


def test_the_next_start_waits_for_a_lease_of_which_nobody_saw_the_end(desk: Desk) -> None:
    desk.begin()
    desk.next_start()
    with pytest.raises(Refused) as refused:
        desk.begin()
    assert refused.value.code == "lease-still-live"


def test_the_next_start_goes_on_at_once_when_the_first_gave_the_lease_up(desk: Desk) -> None:
    fence = desk.begin()
    desk.write(fence, *RAN, ("abandon", None, {"reason": "evicted"}))
    desk.next_start()  # its hook asks before the agent has looked again
    assert desk.begin() == fence + 1
    assert desk.server.events(desk.key, "lease-abandoned")


def test_a_start_in_the_same_slot_shows_that_the_one_before_is_over(desk: Desk) -> None:
    fence = desk.begin()
    desk.next_start()
    desk.ad["RemoteHost"] = "slot1_1@ep1"
    assert desk.begin() == fence + 1


@pytest.mark.parametrize(
    ("changes", "is_renewed"),
    [
        ({}, True),
        ({"JobStatus": 7}, True),
        ({"NumShadowStarts": 3}, True),  # a reconnect: the same processes go on
        ({"JobStatus": 1}, False),
        ({"JobStatus": 5}, False),
        ({"JobCurrentStartDate": 2000}, False),
    ],
)
def test_a_lease_is_renewed_while_the_queue_shows_this_very_start(
    desk: Desk, changes: dict[str, Plain], is_renewed: bool
) -> None:
    desk.begin()
    before = left = desk.server.subjob(desk.key)["expires_in_seconds"]
    while left > before - 0.5:  # so much is gained by a renewal, however fast all is
        time.sleep(0.05)
        left = desk.server.subjob(desk.key)["expires_in_seconds"]
    desk.ad.update(changes)
    desk.look()
    after = desk.server.subjob(desk.key)["expires_in_seconds"]
    assert (after > left) is is_renewed


def test_a_job_that_is_not_in_the_queue_is_left_alone(desk: Desk) -> None:
    desk.begin()
    names = desk.names()
    desk.starts.look(MadeQueue(None))
    assert desk.names() == names
    assert list(desk.directory.glob("*.json"))


@pytest.mark.parametrize(
    "entry",
    [
        ("settle", None, {"outcome": "complete"}),
        ("commit", None, {}),
        ("cancel", None, {}),
        ("enroll", None, {"force": True}),
        ("../../tokens", None, {}),
        ("enter", None, {}),
        ("exited", "a", {}),
        ("complete", "a/../../../settle", {}),
        ("renew", None, {"nonsense": 1}),
        ("renew", None, {"fence": 99}),
    ],
)
def test_a_journal_may_ask_for_what_a_holder_may_and_nothing_else(
    desk: Desk, entry: tuple[str, str | None, dict[str, object]]
) -> None:
    fence = desk.begin()
    desk.write(fence, entry, ("enter", "run", {}))
    desk.look()
    names = [name for name in desk.names() if name != "lease-renewed"]
    assert names[1:] == ["lease-acquired", "phase-entered"]
    assert desk.server.subjob(desk.key)["outcome"] is None


@pytest.mark.parametrize("text", ["1.1.1:garbage", "1.9.2:abc", "not one", ""])
def test_a_journal_that_cannot_be_read_costs_nothing_but_itself(desk: Desk, text: str) -> None:
    desk.begin()
    desk.ad[PARTS[0]] = text
    desk.look()
    assert desk.server.subjob(desk.key)["status"] == "active"


def test_with_the_server_away_the_rest_of_a_journal_comes_later(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    desk = Desk(own_server, tmp_path / "starts")
    fence = desk.begin()
    desk.write(fence, *RAN)
    own_server.stop()
    with pytest.raises(ServerUnavailable):
        desk.look()
    own_server.start()
    desk.look()
    assert desk.names().count("phase-entered") == 2


def test_a_job_that_has_ended_is_forgotten_after_its_last_words(desk: Desk) -> None:
    fence = desk.begin()
    desk.write(fence, *RAN, ("exited", None, {"exit_code": 3}))
    desk.ad["JobStatus"] = 4
    desk.starts.job_ended(desk.job, MadeQueue(desk.ad))
    assert desk.server.subjob(desk.key)["exit_code"] == 3
    desk.starts.job_settled(desk.job)
    assert not list(desk.directory.glob("*.json"))
