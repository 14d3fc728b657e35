"""The details file between payload and wrapper."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease.rules.messages import DETAILS_MAX_BYTES
from htlease_wrapper.details import DetailsFile, UnusableDetails


def _save(file: DetailsFile, data: bytes) -> None:
    new = file.path.with_name("details.new")
    new.write_bytes(data)
    new.replace(file.path)


def test_new_details_are_taken_once(tmp_path: Path) -> None:
    file = DetailsFile(tmp_path)
    assert file.take_new() is None
    _save(file, "half é\r\n".encode())
    assert file.take_new() == "half é\r\n"
    assert file.take_new() is None
    _save(file, "half é\r\n".encode())
    assert file.take_new() == "half é\r\n"


def test_what_the_wrapper_puts_there_is_not_new(tmp_path: Path) -> None:
    file = DetailsFile(tmp_path)
    file.put("saved\r\n")
    assert file.path.read_bytes() == b"saved\r\n"
    assert file.take_new() is None
    file.put(None)
    assert not file.path.exists()
    file.put(None)
    assert file.take_new() is None


def test_what_an_earlier_process_left_is_not_new(tmp_path: Path) -> None:
    _save(DetailsFile(tmp_path), b"left")
    assert DetailsFile(tmp_path).take_new() is None


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"x" * (DETAILS_MAX_BYTES + 1), "65536 is the limit"), (b"\xff", "is not UTF-8 text")],
)
def test_unusable_details_are_refused_once(tmp_path: Path, data: bytes, said: str) -> None:
    file = DetailsFile(tmp_path)
    _save(file, data)
    with pytest.raises(UnusableDetails, match=said):
        file.take_new()
    assert file.take_new() is None


def test_details_of_exactly_the_limit_are_taken(tmp_path: Path) -> None:
    file = DetailsFile(tmp_path)
    _save(file, b"x" * DETAILS_MAX_BYTES)
    assert file.take_new() == "x" * DETAILS_MAX_BYTES
