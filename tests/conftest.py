"""What tests of several worlds share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one file that goes to execution points, built for this test run."""
    built = tmp_path_factory.mktemp("dist") / "htlease-ep.pyz"
    subprocess.run(
        [sys.executable, PROJECT / "wrappers" / "build_pyz.py", "--output", built], check=True
    )
    return built
