"""The timeline has a row for all that happened, and says who, where, under which fence and why."""

from __future__ import annotations

import io
import typing

from tests.unit.cli.show.recorder import SLOT, Recorder

from htlease.rules import messages as m
from htlease.rules.attempt import Place
from htlease_cli.show import timeline as timeline_module
from htlease_cli.show.timeline import COLUMNS, print_timeline, timeline
from htlease_server.engine.history import EVENT_NAMES

OTHER = Place("ep2", "slot1_1@ep2", "<10.0.0.2:9618>#1700000001")


def rows(world: Recorder) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in timeline(world.documents).rows]


def test_a_restart_in_the_second_phase_reads_as_a_story() -> None:
    world = Recorder(hosts={"b": "ep2"})
    world.grant("a", 1, place=SLOT)
    world.run("a", "stage-in")
    world.write("a", m.Enter, "compute")
    world.write("a", m.Renew, "x" * 12)
    world.write("a", m.Abandon, "SIGTERM")
    world.grant("b", 2, place=OTHER)
    world.run("b", "stage-in", "compute", "stage-out")
    world.write("b", m.Exited, 0)
    found = [
        (row["ATTEMPT"], row["HOST"], row["PHASE"], row["FENCE"], row["WHAT HAPPENED"])
        for row in rows(world)
    ]
    assert found == [
        ("", "", "", "", "enrolled"),
        ("1", "ep1", "", "1", "got the lease"),
        ("1", "ep1", "stage-in", "1", "entered"),
        ("1", "ep1", "stage-in", "1", "completed"),
        ("1", "ep1", "compute", "1", "entered"),
        ("1", "ep1", "compute", "1", "saved details (12 bytes)"),
        ("1", "ep1", "compute", "1", "gave the lease up"),
        ("2", "ep2", "", "2", "reclaimed the lease"),
        ("2", "ep2", "stage-in", "2", "entered"),
        ("2", "ep2", "stage-in", "2", "completed"),
        ("2", "ep2", "compute", "2", "entered"),
        ("2", "ep2", "compute", "2", "completed"),
        ("2", "ep2", "stage-out", "2", "entered"),
        ("2", "ep2", "stage-out", "2", "completed"),
        ("2", "ep2", "stage-out", "2", "closed as complete"),
        ("2", "ep2", "stage-out", "2", "payload ended, exit code 0"),
    ]
    assert rows(world)[7]["WHY"] == "attempt 1 had given the lease up"


def test_waiting_and_refused_attempts_are_named_by_their_starts() -> None:
    world = Recorder(hosts={"b": "ep2"})
    world.grant("a", 1)
    world.acquire("b", 2)
    waiting = next(row for row in rows(world) if row["WHAT HAPPENED"] == "has to wait")
    assert (waiting["ATTEMPT"], waiting["HOST"]) == ("2.2", "ep2")
    assert "still live; it has been recalled" in waiting["WHY"]


def test_a_zombies_write_is_told_under_its_own_attempt_and_fence() -> None:
    world = Recorder()
    world.grant("a", 1)
    world.now += 500
    world.grant("b", 2)
    world.write("a", m.Complete, "stage-in")
    last = rows(world)[-1]
    assert (last["ATTEMPT"], last["FENCE"]) == ("1", "1")
    assert last["WHAT HAPPENED"] == "late complete refused"
    assert last["WHY"] == "superseded-attempt: attempt 2 took over"


def test_every_kind_of_event_but_the_renewal_has_a_row() -> None:
    told = set(timeline_module._TELLERS)
    assert told == {EVENT_NAMES[event] for event in typing.get_args(m.Event)} - {"lease-renewed"}


def test_in_a_pipe_columns_are_aligned_and_nothing_is_cut() -> None:
    world = Recorder()
    world.grant("a", 1)
    world.write("a", m.Abandon, "a reason " * 40)
    stream = io.StringIO()
    print_timeline(world.documents, stream)
    lines = stream.getvalue().splitlines()
    start = lines[0].index("WHAT HAPPENED")
    assert [line[start:].split("  ")[0] for line in lines[1:]] == [
        "enrolled",
        "got the lease",
        "gave the lease up",
    ]
    assert lines[-1].endswith("a reason a reason")


def test_details_saved_again_and_again_share_the_row_of_the_last_time() -> None:
    def saved(second: int, fence: int) -> dict[str, object]:
        return {
            "seq": second,
            "at": f"2026-11-21T04:38:{second:02}.000Z",
            "event": "details-saved",
            "fence": fence,
            "phase": "compute",
            "details_bytes": second,
        }

    entered = {**saved(5, 1), "event": "phase-entered"}
    rows = timeline([saved(1, 1), saved(2, 1), entered, saved(6, 1), saved(7, 2), saved(8, 2)]).rows
    assert [row[5] for row in rows] == [
        "saved details (2 bytes), 2 times",
        "entered",
        "saved details (6 bytes)",
        "saved details (8 bytes), 2 times",
    ]
