"""A scratch directory where others write too: what they put in place of our files does no harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.process.execution import Sandbox

_NOBODY = 65534
_BRACKETS = "[" * 10_000_000
_DEEP = '{"start": ' * 10_000


def _fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made-through-a-link"))


def _folder(path: Path, victim: Path) -> None:
    path.mkdir()


def _full_folder(path: Path, victim: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def _foreign(path: Path, victim: Path) -> None:
    path.write_text('{"nonce": "' + "f" * 32 + '"}')
    os.chown(path, _NOBODY, _NOBODY)


def _brackets(path: Path, victim: Path) -> None:
    path.write_text(_BRACKETS)


def _deep(path: Path, victim: Path) -> None:
    path.write_text(_DEEP)


def _link_to_folder(path: Path, victim: Path) -> None:
    path.symlink_to(victim.parent)


def _foreign_folder(path: Path, victim: Path) -> None:
    path.mkdir()
    os.chown(path, _NOBODY, _NOBODY)


def _open_folder(path: Path, victim: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


Plant = Callable[[Path, Path], None]
_FILES: tuple[Plant, ...] = (
    *(_fifo, _link, _dangling_link, _folder, _full_folder, _foreign, _brackets, _deep),
)
_FOLDERS: tuple[Plant, ...] = (_fifo, _link_to_folder, _foreign_folder, _open_folder, _foreign)
_NAMED = {
    ".htlease.json": _FILES,
    ".htlease": _FOLDERS,
    ".htlease-hooks": _FOLDERS,
    ".htlease-hooks/.htlease.json": _FILES,
    ".htlease-hooks/renewed-token": _FILES,
    ".htlease-hooks/token": _FILES,
    ".chirp.config": _FILES,
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make others' files")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody's that a link leads to."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    return folder / "kept"


@pytest.mark.parametrize("name", _NAMED)
def test_what_others_put_in_place_of_our_files_is_not_followed(
    sandbox: Sandbox, victim: Path, name: str
) -> None:
    for plant in _NAMED[name]:
        path = sandbox.path / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        plant(path, victim)
        sandbox.environ["HTLEASE_KEY"] = f"{sandbox.key}-{plant.__name__}"
        assert sandbox.run("--", "sh", "-c", "exit 4") == 4, (plant, sandbox.messages)
        assert [entry.name for entry in victim.parent.iterdir()] == ["kept"], plant
        assert victim.read_text() == "kept"
        (attempt,) = sandbox.server.subjob(sandbox.environ["HTLEASE_KEY"])["attempts"]
        assert attempt["exit_code"] == 4, plant
        _remove(path)
    assert "internal error" not in sandbox.messages


@pytest.mark.parametrize("name", [".job.ad", ".machine.ad"])
def test_an_ad_that_is_no_file_is_as_none(sandbox: Sandbox, name: str) -> None:
    attribute = {".job.ad": "_CONDOR_JOB_AD", ".machine.ad": "_CONDOR_MACHINE_AD"}[name]
    fifo = sandbox.path / "fifo.ad"
    os.mkfifo(fifo)
    sandbox.environ[attribute] = str(fifo)
    assert sandbox.run("--", "sh", "-c", "exit 4") == 4


@pytest.mark.parametrize("plant", [_fifo, _link, _folder, _full_folder, _brackets])
def test_details_that_are_no_file_are_not_waited_for(
    sandbox: Sandbox, victim: Path, plant: Plant
) -> None:
    process = sandbox.start(
        "--", sandbox.script("p", "echo > on; while [ ! -e go ]; do sleep 0.05; done; exit 4")
    )
    sandbox.wait_text("on", "\n")
    plant(sandbox.path / ".htlease" / "details", victim)
    sandbox.wait_text("stderr", "the new details are not saved")
    sandbox.write("go", "")
    assert process.wait(60) == 4
    assert sandbox.server.subjob(sandbox.key)["details"] is None


def test_a_folder_swapped_for_a_link_is_not_emptied(sandbox: Sandbox, victim: Path) -> None:
    script = f"rm -r .htlease; ln -s {victim.parent} .htlease; exit 4"
    assert sandbox.run("--", sandbox.script("p", script)) == 4
    assert victim.read_text() == "kept"


def test_somebody_elses_token_is_not_used(sandbox: Sandbox) -> None:
    token = sandbox.path / "htlease.token"
    sandbox.environ["BEARER_TOKEN"] = token.read_text()
    token.write_text("somebody-elses")
    os.chown(token, _NOBODY, _NOBODY)
    assert sandbox.run("--", "sh", "-c", "exit 4") == 4


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            entry.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
