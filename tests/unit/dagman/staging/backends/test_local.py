"""The back-end for tools that copy while one waits: a real child of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.dagman.staging.test_engine import KEY

from htlease_dagman.staging.backends.local import RunBackend
from htlease_dagman.staging.engine import Engine, Verdict, take_up
from htlease_dagman.staging.transfer import Item, NeedsPerson, Place, State, TaskStatus, Transfer
from htlease_dagman.staging.transfer_record import TransferRecord

TRANSFER = Transfer(Place("a", "/a"), Place("b", "/b"), (Item("x", "y"), Item("z", "z")))
SLEEPS = ("/bin/sh", "-c", "sleep 600 & wait")


@pytest.fixture
def opened() -> Iterator[list[RunBackend]]:
    backends: list[RunBackend] = []
    yield backends
    for backend in backends:
        backend.close()


def ended(backend: RunBackend, task: str) -> TaskStatus:
    until = time.monotonic() + 30
    while (status := backend.poll(task)).state is State.RUNNING:
        assert time.monotonic() < until
        time.sleep(0.02)
    return status


@pytest.mark.parametrize(
    ("code", "state"), [(0, State.DONE), (1, State.RETRYABLE), (4, State.FATAL)]
)
def test_the_exit_code_says_how_it_ended(code: int, state: State) -> None:
    backend = RunBackend(("/bin/sh", "-c", f"exit {code}"), {4: "failed"})
    assert ended(backend, backend.submit("k", TRANSFER, None)).state is state


def test_the_command_gets_places_and_the_list_of_items(tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = f'{{ echo "$1 $2"; cat; }} > {note}'
    backend = RunBackend(("/bin/sh", "-c", script, "sh", "{from}", "{to}"), {})
    ended(backend, backend.submit("k", TRANSFER, None))
    assert note.read_text() == "/a /b\n/a/x\t/b/y\n/a/z\t/b/z\n"


@pytest.mark.parametrize("script", ["sleep 600 & wait", "(trap '' TERM; sleep 600) & wait"])
def test_it_ends_with_its_watcher_and_all_that_it_started(script: str) -> None:
    backend = RunBackend(("/bin/sh", "-c", script), {})
    task = backend.submit("k", TRANSFER, None)
    assert backend.poll(task).state is State.RUNNING
    group = task.removeprefix("process-")
    wait_until(lambda: len(alive(group)) > 1)
    backend.close()
    wait_until(lambda: not alive(group))  # a signal is sent before it is heard


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(group: str) -> list[str]:
    return [
        stat.parent.name
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := _fields(stat)) and fields[2] == group and fields[0] != "Z"
    ]


def _fields(stat: Path) -> list[str]:
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def test_a_next_watcher_runs_it_again_as_the_same_task(opened: list[RunBackend]) -> None:
    opened += [RunBackend(SLEEPS, {}), RunBackend(SLEEPS, {})]
    saved: list[TransferRecord] = []
    record, _ = Engine(KEY, TRANSFER, opened[0]).advance(TransferRecord(), saved.append)
    opened[0].close()
    record = take_up(record, None, is_alone=True)
    record, verdict = Engine(KEY, TRANSFER, opened[1]).advance(record, saved.append)
    assert (record.generation, verdict) == (1, Verdict.WAIT)
    assert opened[1].poll(record.external_id or "").state is State.RUNNING


def test_a_tool_that_is_not_there_needs_a_person() -> None:
    with pytest.raises(NeedsPerson, match="/no/such/tool"):
        RunBackend(("/no/such/tool",), {}).submit("k", TRANSFER, None)
