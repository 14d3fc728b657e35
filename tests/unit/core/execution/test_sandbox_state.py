"""Whose `.htlease.json` is believed."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from htlease.execution.processes import start_ticks
from htlease.execution.sandbox_state import (
    FOLDER,
    STATE_FILE,
    SandboxState,
    StartId,
    boot_id,
    home_in,
    inherited,
    next_state,
    read_state,
    remove_state,
    write_state,
)

START = StartId("ap1#42.0#17", 0, 1, "/scratch", "boot-1")
#: Left by a process that is over: its pid now belongs to one that started at another time.
LEFT = SandboxState(START, 1, "n" * 32, "wf/one", os.getpid(), 1, "http://127.0.0.1:1", 7, 2)


def _after(before: SandboxState | None, key: str = "wf/one") -> SandboxState:
    return next_state(before, START, "f" * 32, key, "http://127.0.0.1:2")


def test_the_next_process_of_the_same_start_takes_nonce_and_fence_over() -> None:
    state = _after(inherited(LEFT, START))
    assert (state.nonce, state.fence, state.sandbox_seq) == (LEFT.nonce, 7, 2)
    assert state.pid_started == start_ticks(os.getpid())


@pytest.mark.parametrize(
    "change",
    [
        {"global_job_id": "ap1#43.0#17"},
        {"num_job_starts": 1},
        {"num_shadow_starts": 2},
        {"sandbox": "/scratch2"},
        {"boot_id": "boot-2"},
    ],
)
def test_the_state_of_another_start_is_not_believed(change: dict[str, object]) -> None:
    other = replace(LEFT, start=replace(START, **change))  # type: ignore[arg-type]
    state = _after(inherited(other, START))
    assert (state.nonce, state.fence, state.sandbox_seq) == ("f" * 32, None, 1)


def test_a_living_process_does_not_share_its_nonce() -> None:
    alive = replace(LEFT, pid_started=start_ticks(os.getpid()))
    assert inherited(alive, START) is None


@pytest.mark.parametrize("unknown", [{"global_job_id": None}, {"boot_id": None}])
def test_a_start_without_a_name_inherits_nothing(unknown: dict[str, None]) -> None:
    start = replace(START, **unknown)  # type: ignore[arg-type]
    assert inherited(replace(LEFT, start=start), start) is None


def test_another_key_gets_a_nonce_of_its_own() -> None:
    assert _after(LEFT, "wf/two").nonce == "f" * 32


def test_what_is_written_is_read_and_only_by_its_owner(tmp_path: Path) -> None:
    write_state(tmp_path, LEFT)
    assert read_state(tmp_path) == LEFT
    assert stat.S_IMODE((tmp_path / STATE_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"start": 3}', '{"start": {}}', "\0"])
def test_a_broken_file_is_no_state(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    assert read_state(tmp_path) is None


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    write_state(tmp_path, LEFT)
    text = (tmp_path / STATE_FILE).read_text().replace("{", '{"later": 1,', 1)
    (tmp_path / STATE_FILE).write_text(text)
    assert read_state(tmp_path) == LEFT


def test_only_what_is_ours_is_removed(tmp_path: Path) -> None:
    write_state(tmp_path, LEFT)
    remove_state(tmp_path, "another nonce")
    assert (tmp_path / STATE_FILE).exists()
    remove_state(tmp_path, LEFT.nonce)
    assert not (tmp_path / STATE_FILE).exists()


def test_a_wrapper_inside_a_payload_has_a_home_of_its_own(tmp_path: Path) -> None:
    assert home_in(tmp_path) == tmp_path
    write_state(tmp_path, LEFT)
    assert home_in(tmp_path) == tmp_path
    write_state(tmp_path, replace(LEFT, pid_started=start_ticks(os.getpid())))
    assert home_in(tmp_path) == tmp_path, "this process has claimed it itself"
    outer = os.getppid()
    write_state(tmp_path, replace(LEFT, pid=outer, pid_started=start_ticks(outer)))
    home = home_in(tmp_path)
    assert home != tmp_path and home.parent == tmp_path


def test_another_machines_state_in_a_shared_directory_is_left_alone(tmp_path: Path) -> None:
    here = replace(LEFT, start=replace(START, sandbox=str(tmp_path), boot_id=boot_id()))
    write_state(tmp_path, here)
    assert home_in(tmp_path) == tmp_path, "its process would be seen if it were alive"
    write_state(tmp_path, replace(here, start=replace(here.start, boot_id="boot-2")))
    home = home_in(tmp_path)
    assert home.parent == tmp_path
    write_state(home, LEFT)
    (home / FOLDER).mkdir()
    remove_state(home, LEFT.nonce)
    assert not home.exists()


def test_the_nonce_is_not_shown_when_a_state_is_printed() -> None:
    assert LEFT.nonce not in repr(LEFT)
