"""The staging files in the manual can be used as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from htlease_dagman.staging.backends.registry import open_backend
from htlease_dagman.staging.staging_file import read_staging_file

MANUAL = Path(__file__).resolve().parents[4] / "docs" / "staging.md"
FILES = re.findall(r"^```toml\n(.*?)^```", MANUAL.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", FILES, ids=[f"file {n}" for n in range(1, len(FILES) + 1)])
def test_a_file_of_the_manual_is_accepted(text: str, tmp_path: Path) -> None:
    for name in ("compute.sub", "clean-up.sub"):
        (tmp_path / name).write_text("queue\n")
    path = tmp_path / "staging.toml"
    path.write_text(text)
    assert open_backend(read_staging_file(path)).submits_once is not None
    for other in re.findall(r"^# (run = .*)$", text, re.MULTILINE):
        begin, _, rest = text.partition("\nrun = ")
        path.write_text(f"{begin}\n{other}\n{rest.partition(chr(10))[2]}")
        assert open_backend(read_staging_file(path)).ends_with_watcher


def test_there_are_files_in_the_manual() -> None:
    assert len(FILES) == 4
