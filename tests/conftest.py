"""What tests of several worlds share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from htlease_lab.pool import Pool
from tests import skips
from tests.pool.lab import Lab, Witness
from tests.serving import ServerProcess

PROJECT = Path(__file__).resolve().parents[1]


# xdist tells its workers how wide its terminal is; what is tested has none.
os.environ.pop("COLUMNS", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    skips.add_option(parser)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    skips.judge(session)


def pytest_terminal_summary(config: pytest.Config) -> None:
    skips.tell(config)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one file that goes to execution points, built for this test run."""
    built = tmp_path_factory.mktemp("dist") / "htlease-ep.pyz"
    subprocess.run(
        [sys.executable, PROJECT / "wrappers" / "build_pyz.py", "--output", built], check=True
    )
    return built


@pytest.fixture(scope="session")
def lab(pool: Pool, tmp_path_factory: pytest.TempPathFactory, pyz: Path) -> Iterator[Lab]:
    """A lease server that both execution points can reach, and a witness for the payloads."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), pool.ap_address)
    server.start()
    witness = Witness(pool.ap_address)
    yield Lab(pool, server, witness, pyz)
    witness.close()
    server.stop()
