"""One personal pool for all tests of this folder; without one they fail.

Tests break the pool on purpose. Whatever became of a test, the next one finds all daemons up, all
cables plugged in and nothing frozen, and the next module an empty queue; a pool that had to be
started again for that is named in a warning.
"""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from tests.pool.agent import AgentProcess, install_shadow_hook
from tests.pool.agent_jobs import PROXY_PORT
from tests.pool.lab import Lab

from htlease_lab.pool import Pool, mending

_CHECKOUT = Path(__file__).parents[2]
_HAS_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.pool)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """A pool with empty queues, in which this checkout is visible on the access point."""
    # Test sessions that run at the same time get one pool each.
    for number in range(1, 10):
        pool = Pool(f"tests{number}", shared=[_CHECKOUT])
        pool.directory.parent.mkdir(parents=True, exist_ok=True)
        with pool.directory.with_suffix(".session").open("w") as session:
            try:
                fcntl.flock(session, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            pool.down()
            pool.up()
            yield pool
            pool.down()
            return
    pytest.fail("nine test sessions already have a pool each")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_HAS_FAILED] = True
    return report


@pytest.fixture(autouse=True, scope="module")
def leaves_no_jobs(pool: Pool) -> Iterator[None]:
    """Take what a module left in the queue away, after all of its other fixtures have ended."""
    yield
    _mend(pool, "the tests of this module")
    mending.clear_queue(pool)


@pytest.fixture(autouse=True)
def leaves_a_whole_pool(request: pytest.FixtureRequest, pool: Pool) -> Iterator[None]:
    """Mend what a test broke; one that passed and left no fault costs a look at processes."""
    yield
    if request.node.stash.get(_HAS_FAILED, False) or mending.faults(pool):
        _mend(pool, request.node.name)


def _mend(pool: Pool, after: str) -> None:
    for what in mending.mend(pool):
        warnings.warn(f"after {after}: {what}", stacklevel=2)


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[AgentProcess]:
    """An agent that every starting job of the pool asks."""
    agent = AgentProcess(lab, "--poll", "1", "--listen", f"{lab.pool.ap_address}:{PROXY_PORT}")
    agent.start()
    install_shadow_hook(lab, agent)
    yield agent
    lab.pool.configure("ap", "agent-test", None)
    agent.stop()
