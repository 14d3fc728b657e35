"""The record that scripts of one node leave for each other."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from htlease_dagman.scripts.node_record import Busy, NodeRecord, ScriptState, read_script_state


def test_a_note_is_there_again_for_the_same_try_and_new_for_another(tmp_path: Path) -> None:
    path = tmp_path / "post" / "A"
    with NodeRecord(str(path), "d/0") as record:
        record.save(nonce="n" * 16, chained=3)
        record.save(exit=3)
    with NodeRecord(str(path), "d/0") as record:
        assert vars(record.script_state) == vars(ScriptState("d/0", "n" * 16, 0, 3, 3))
    with NodeRecord(str(path), "d/1") as record:
        assert vars(record.script_state) == vars(ScriptState("d/1"))


def test_only_one_at_a_time_has_it(tmp_path: Path) -> None:
    with NodeRecord(str(tmp_path / "A"), "d/0"), pytest.raises(Busy):
        NodeRecord(str(tmp_path / "A"), "d/0")
    NodeRecord(str(tmp_path / "A"), "d/0").close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with NodeRecord(str(tmp_path / "A"), "d/0") as record:
        record.save(nonce="n" * 16)
    assert stat.S_IMODE((tmp_path / "A").stat().st_mode) == 0o600


def test_a_crash_between_writing_and_cutting_leaves_the_new_note(tmp_path: Path) -> None:
    path = tmp_path / "A"
    with NodeRecord(str(path), "d/0") as record:
        record.save(nonce="n" * 100, deferrals=1)
        old = path.read_bytes()
        record.save(nonce=None, deferrals=2)
    new = path.read_bytes()
    path.write_bytes(new + old[len(new) :])
    script_state = read_script_state(str(path))
    assert script_state is not None
    assert vars(script_state) == vars(ScriptState("d/0", None, 2))


@pytest.mark.parametrize("content", [b"", b"{", b'{"other": 1}\n', b"[]\n", bytes(range(128, 188))])
def test_what_is_no_note_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "A").write_bytes(content)
    assert read_script_state(str(tmp_path / "A")) is None
    with NodeRecord(str(tmp_path / "A"), "d/0") as record:
        assert vars(record.script_state) == vars(ScriptState("d/0"))
