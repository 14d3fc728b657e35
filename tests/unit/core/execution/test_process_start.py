"""What the prelude hands over becomes the environment that was given, entry for entry."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

import pytest

from htlease.execution import process_start
from htlease.execution.process_start import Entries, ProcessStart, read_process_start
from htlease_wrapper.exec_payload import absolute


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What a shell has passed on to this process."""
    entries = [b"PATH=/bin", b"A=1", b"PWD=/", b"htlease_kept_LD_PRELOAD=x", b"LC_CTYPE=C.UTF-8"]
    monkeypatch.setattr(process_start, "_own_entries", lambda: entries)
    return entries


def test_without_a_prelude_the_environment_is_the_given_one(own: list[bytes]) -> None:
    start = read_process_start(None)
    assert start.entries == tuple(own)
    assert start.to_reset == {signal.SIGPIPE, signal.SIGXFSZ}


@pytest.mark.parametrize(
    ("words", "entries"),
    [
        (["0", ",A,=" + b"a.b=\xff".hex() + ",PATH"], [b"A=1", b"a.b=\xff", b"PATH=/bin"]),
        (["0", ",=" + b"A=2".hex(), ",A"], [b"A=2", b"A=1"]),
        (["0", ",=41", "3d39,A"], [b"A=9", b"A=1"]),  # cut in the middle of an entry
        (["0"], []),
    ],
)
def test_words_are_names_that_came_through_and_entries_that_did_not(
    own: list[bytes], words: Sequence[str], entries: list[bytes]
) -> None:
    start = read_process_start(words)
    assert list(start.entries) == entries
    assert start.unknown == ""


def test_without_proc_what_was_hidden_is_given_back(own: list[bytes]) -> None:
    start = read_process_start(["?", "?"])
    assert list(start.entries) == [b"PATH=/bin", b"A=1", b"PWD=/", b"LD_PRELOAD=x"]
    assert "no identifiers" in start.unknown
    assert start.ignored == frozenset()


@pytest.mark.parametrize(
    ("mask", "ignored"),
    [
        ("0000000000001000", {signal.SIGPIPE}),
        ("0000000001000000", {signal.SIGXFSZ}),
        ("0000000001001003", {signal.SIGPIPE, signal.SIGXFSZ}),
        ("0000000000000001", set()),
    ],
)
def test_the_mask_tells_which_of_pythons_own_were_ignored(
    own: list[bytes], mask: str, ignored: set[int]
) -> None:
    start = read_process_start([mask, ",A"])
    assert start.ignored == ignored
    assert start.to_reset == {signal.SIGPIPE, signal.SIGXFSZ} - ignored


def test_changes_leave_the_rest_as_it_was() -> None:
    start = ProcessStart([b"A=1", b"B=1", b"A=2", b"C=\xff", b"no entry", b"=D=4"])
    wanted = {**start.environ(), "B": "9", "NEW": "x"}
    changed = start.with_changes(wanted)
    assert changed.keys() == [b"A", b"A", b"C", b"=D", b"B", b"NEW"]
    assert changed.values() == [b"1", b"2", b"\xff", b"4", b"9", b"x"]
    del wanted["A"]
    assert b"A" not in start.with_changes(wanted)


def test_entries_reach_a_program_in_order_and_doubled() -> None:
    reading, writing = os.pipe()
    pid = os.posix_spawn(
        "/usr/bin/env",
        ["env", "-0"],
        Entries([b"Z=1", b"A=2", b"Z=3"]),
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"Z=1\0A=2\0Z=3\0"
    assert os.waitpid(pid, 0)[1] == 0


def test_the_first_of_doubled_names_counts_as_for_getenv() -> None:
    entries = Entries([b"Z=1", b"Z=3"])
    assert (entries[b"Z"], len(entries)) == (b"1", 2)
    said = subprocess.run(["/usr/bin/printenv", "Z"], env=entries, capture_output=True, check=True)
    assert said.stdout.split() == [b"1"]


@pytest.mark.parametrize(
    ("named", "called"),
    [("./p", "/here/p"), ("a/../p", "/here/a/../p"), ("/x/p", "/x/p"), ("sh", "sh")],
)
def test_a_program_with_a_slash_is_called_by_its_full_path(
    monkeypatch: pytest.MonkeyPatch, named: str, called: str
) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: "/here")
    assert absolute([named, "./a"]) == [called, "./a"]
