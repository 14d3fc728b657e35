"""Transfers as jobs of HTCondor's: the submit description and what a job's ad means."""

from __future__ import annotations

from typing import Any

import pytest

from htlease_dagman.staging.backends import condor
from htlease_dagman.staging.backends.condor import CondorBackend, status_of, submit_text
from htlease_dagman.staging.transfer import (
    CannotFind,
    Item,
    Place,
    Refused,
    ServiceUnavailable,
    State,
    Transfer,
)

HERE, THERE = Place("here", "/data"), Place("there", "osdf:///ours/run7")


def commands_of(*items: Item, source: Place = HERE, **own: str) -> dict[str, str]:
    text = submit_text("htlease-1", Transfer(source, THERE, items), own)
    pairs = (line.split(" = ", 1) for line in text.splitlines() if " = " in line and line[0] != "#")
    return dict(pairs)


def test_each_item_goes_in_by_its_name_and_out_to_its_place() -> None:
    commands = commands_of(Item("a.dat", "b.dat"), Item("sub/tables/", "tabs/"))
    assert commands["transfer_input_files"] == "/data/a.dat, /data/sub/tables"
    assert commands["transfer_output_files"] == "a.dat, tables"
    remaps = '"a.dat=osdf:///ours/run7/b.dat; tables=osdf:///ours/run7/tabs"'
    assert commands["transfer_output_remaps"] == remaps


def test_a_task_is_found_by_its_key_and_left_alone_by_hooks() -> None:
    commands = commands_of(Item("a", "a"), request_disk="10GB")
    assert commands["My.HTLeaseTransferKey"] == '"htlease-1"'
    assert commands["My.HTLease"] == "false"
    assert commands["request_disk"] == "10GB"


@pytest.mark.parametrize(
    "items", [(Item("x/a", "a"), Item("y/a", "b")), (Item("a b", "c"),), (Item("a", 'b"c'),)]
)
def test_what_one_job_cannot_transfer_is_refused_for_good(items: tuple[Item, ...]) -> None:
    with pytest.raises(Refused) as caught:
        commands_of(*items)
    assert caught.value.is_fatal


@pytest.mark.parametrize(
    ("ad", "state"),
    [
        ({"JobStatus": 1}, State.RUNNING),
        ({"JobStatus": 2}, State.RUNNING),
        ({"JobStatus": 6}, State.RUNNING),
        ({"JobStatus": 4, "ExitCode": 0}, State.DONE),
        ({"JobStatus": 4, "ExitCode": 1}, State.RETRYABLE),
        ({"JobStatus": 5, "HoldReasonCode": 13, "HoldReason": "no such file"}, State.RUNNING),
        ({"JobStatus": 5, "HoldReasonCode": 1, "HoldReason": "by user"}, State.NEEDS_ACTION),
        ({"JobStatus": 3, "LastHoldReasonCode": 12, "LastHoldReason": "x"}, State.RETRYABLE),
        ({"JobStatus": 3, "RemoveReason": "via condor_rm (by user ann)"}, State.FATAL),
    ],
)
def test_what_a_job_shows_is_what_its_transfer_is(ad: dict[str, Any], state: State) -> None:
    assert status_of({"ClusterId": 7, "ProcId": 0, **ad}).state is state


def test_who_has_to_release_a_held_transfer_is_told_how() -> None:
    held = {"ClusterId": 7, "ProcId": 0, "JobStatus": 5, "HoldReasonCode": 1, "HoldReason": "why"}
    assert status_of(held).text == "run: condor_release 7.0   (held: why)"


@pytest.fixture
def schedd(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Return since when a schedd without jobs says that it has its queue."""
    said: dict[str, int | None] = {"born_at": 100}
    monkeypatch.setattr(condor, "queue_birthdate", lambda: said["born_at"])
    monkeypatch.setattr(CondorBackend, "_find", lambda self, constraint: None)
    return said


def test_no_such_job_counts_only_in_the_queue_that_it_was_put_into(
    schedd: dict[str, int | None],
) -> None:
    backend = CondorBackend({})
    noted = backend.reserve("k")
    assert backend.find_by_key("k", noted) is None
    assert backend.poll("ap#7.0#150").state is State.UNKNOWN
    schedd["born_at"] = 200
    with pytest.raises(CannotFind):
        backend.find_by_key("k", noted)
    with pytest.raises(CannotFind):
        backend.poll("ap#7.0#150")


def test_a_schedd_that_does_not_tell_is_asked_again(schedd: dict[str, int | None]) -> None:
    schedd["born_at"] = None
    backend = CondorBackend({})
    with pytest.raises(ServiceUnavailable):
        backend.reserve("k")
    with pytest.raises(ServiceUnavailable):
        backend.find_by_key("k", "100")
    with pytest.raises(ServiceUnavailable):
        backend.poll("ap#7.0#150")
