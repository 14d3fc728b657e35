"""Secrets in a directory where others may write: what they put there is neither read nor followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_server.auth.secret_files import make_secret, read_or_make_secret, read_secret

_NOBODY = 65534


def test_a_secret_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    secret = read_or_make_secret(path, "key")
    assert read_or_make_secret(path, "key") == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "key", tmp_path / "elsewhere"
    path.symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        make_secret(path, "key")
    with pytest.raises(BadConfig, match="cannot be read"):
        read_or_make_secret(path, "key")
    assert not elsewhere.exists()


def test_what_lies_at_a_temporary_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f".key.{os.getpid()}").symlink_to(tmp_path / "elsewhere")
    make_secret(tmp_path / "key", "key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(BadConfig, match="no regular file"):
        read_secret(tmp_path / "key", "key")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    os.truncate(path, 1 << 40)
    with pytest.raises(BadConfig, match="more than 4096 bytes"):
        read_secret(path, "key")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make others' files")
def test_somebody_elses_file_and_link_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_secret(path, "key")
    os.chown(path, _NOBODY, _NOBODY)
    with pytest.raises(BadConfig, match="belongs to somebody else"):
        read_secret(path, "key")
    os.chown(path, 0, 0)
    link = tmp_path / "link"
    link.symlink_to(path)
    os.lchown(link, _NOBODY, _NOBODY)
    with pytest.raises(BadConfig, match="belongs to somebody else"):
        read_secret(link, "key")
