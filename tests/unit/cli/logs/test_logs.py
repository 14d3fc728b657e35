"""Lines from server and event log come out in order, and each start's output is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.show.recorder import Recorder

from htlease.condor.job_event import JobEvent
from htlease.rules import messages as m
from htlease_cli.logs.entries import Entry, from_event_log, from_history, in_order, line_of
from htlease_cli.logs.outputs import TAIL_BYTES, Output, outputs_of, tail_of


def story() -> Recorder:
    world = Recorder(hosts={"b": "ep2"})
    world.grant("a", 1)
    world.write("a", m.Enter, "stage-in")
    world.write("a", m.Abandon, "SIGTERM")
    world.grant("b", 2)
    world.run("b", "stage-in")
    return world


def test_each_line_of_the_history_bears_its_attempt_and_fence() -> None:
    entries = from_history("s-1", story().documents)
    assert [(entry.attempt, entry.text.partition(":")[0]) for entry in entries] == [
        (None, "enrolled"),
        (1, "got the lease (fence 1)"),
        (1, "stage-in entered (fence 1)"),
        (1, "stage-in gave the lease up (fence 1)"),
        (2, "reclaimed the lease (fence 2)"),
        (2, "stage-in entered (fence 2)"),
        (2, "stage-in completed (fence 2)"),
    ]
    assert {entry.source for entry in entries} == {"server"}


def test_events_of_the_job_are_counted_by_executions() -> None:
    events = [
        JobEvent("7.0", 0, "SUBMIT", 10, {"SubmitHost": "<10.0.0.1>"}),
        JobEvent("7.0", 1, "EXECUTE", 11, {"ExecuteHost": "<10.0.0.2>"}),
        JobEvent("7.0", 4, "JOB_EVICTED", 12, {"Reason": "vacated"}),
        JobEvent("7.0", 1, "EXECUTE", 13, {}),
    ]
    assert [(entry.attempt, entry.text) for entry in from_event_log("s-1", events)] == [
        (None, "000 submit: SubmitHost <10.0.0.1>"),
        (1, "001 execute: ExecuteHost <10.0.0.2>"),
        (1, "004 job evicted: Reason vacated"),
        (2, "001 execute"),
    ]


def test_lines_of_all_sources_are_in_the_order_of_time() -> None:
    entries = [
        Entry(3, "a", 1, "server", "third"),
        Entry(1, "b", None, "condor", "first"),
        Entry(2, "a", 2, "condor", "second"),
    ]
    assert [entry.text for entry in in_order(entries)] == ["first", "second", "third"]
    assert [entry.text for entry in in_order(entries, "a")] == ["second", "third"]
    assert [entry.text for entry in in_order(entries, "a", 1)] == ["third"]


def test_a_line_names_time_node_attempt_and_source() -> None:
    entry = Entry(1795232712.0, "s-1", 2, "server", "what happened")
    assert line_of(entry, 5) == "2026-11-21 03:45:12  s-1      2  server  what happened"


def test_every_start_may_have_its_own_files(tmp_path: Path) -> None:
    ad = {"Iwd": str(tmp_path), "Out": "out.$$([NumJobStarts])", "Err": "err"}
    assert outputs_of(ad, 2) == [
        Output("stdout", 1, tmp_path / "out.0"),
        Output("stdout", 2, tmp_path / "out.1"),
        Output("stderr", None, tmp_path / "err"),
    ]
    assert outputs_of({"Iwd": "/x", "Out": "/dev/null"}, 2) == []
    assert outputs_of({"Iwd": "/x", "Out": "/abs/out"}, 1) == [
        Output("stdout", None, Path("/abs/out"))
    ]


@pytest.mark.parametrize(
    ("lines", "expected"), [(2, ["b", "c"]), (9, ["a", "b", "c"]), (0, []), (None, ["a", "b", "c"])]
)
def test_the_last_lines_of_a_file(tmp_path: Path, lines: int | None, expected: list[str]) -> None:
    path = tmp_path / "out"
    path.write_text("a\nb\nc\n")
    assert tail_of(path, lines) == expected
    assert tail_of(tmp_path / "none", lines) is None


def test_a_huge_file_is_read_from_near_its_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"\xff\n" * TAIL_BYTES + b"the last\n")
    assert tail_of(path, 1) == ["the last"]
    whole = tail_of(path, None)
    assert whole is not None and len(whole) == TAIL_BYTES + 1
