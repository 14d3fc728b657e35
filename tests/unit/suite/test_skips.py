"""A run that skips more than it may fails, also when all else passed and on several workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROJECT = Path(__file__).parents[3]
_CONFTEST = """
from tests.conftest import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary
"""
_TESTS = """
import pytest
def test_passes(): pass
@pytest.mark.parametrize("number", range(2))
def test_is_skipped(number): pytest.skip("no such thing here")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("most", "status"), [("2", 0), ("1", 1)])
def test_skips_above_the_stated_number_fail_the_run(
    tmp_path: Path, workers: str, most: str, status: int
) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_some.py").write_text(_TESTS)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {_PROJECT}\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        workers,
        "--skips-at-most",
        most,
        str(tmp_path),
    ]
    roots = ":".join(str(_PROJECT / root) for root in ("core", "lab", "."))
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": roots}
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert f"skipped: 2, at most {most} allowed" in done.stdout
    assert "2 x Skipped: no such thing here" in done.stdout
