"""A real server process, and sandboxes in which the built pyz runs as HTCondor would run it."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.process.command_lab import Lab, clean_environment
from tests.process.dag_node import DagNode, NewNode
from tests.process.execution import NewSandbox, Sandbox
from tests.process.hooking import HookedStart, Hooks
from tests.process.store_command import Jobs
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> None:
    """Payloads inherit what is ignored, so nothing may be (a shell's `&` ignores two signals)."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that no test may stop."""
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, to be stopped and started at will."""
    server = ServerProcess(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def load(own_server: ServerProcess) -> Iterator[list[Jobs]]:
    """Jobs that keep a server busy until they are told to stop."""
    jobs = [Jobs(own_server, number) for number in range(4)]
    for thread in jobs:
        thread.start()
    yield jobs
    for thread in jobs:
        thread.stop()


@pytest.fixture
def new_sandbox(tmp_path: Path, pyz: Path) -> Iterator[Callable[..., Sandbox]]:
    """Make scratch directories of different starts; what still runs at the end is killed."""
    made: list[Sandbox] = []

    def new(server: ServerProcess, *, key: str | None = None, **start: int) -> Sandbox:
        number = next(_NUMBERS)
        path = tmp_path / f"dir_{number}"
        box = Sandbox(path, pyz, server, key or f"tests/s{number}", **start)
        made.append(box)
        return box

    yield new
    for box in made:
        box.kill_all()


@pytest.fixture
def sandbox(new_sandbox: Callable[..., Sandbox], server: ServerProcess) -> Sandbox:
    """The scratch directory of the first start of a job."""
    return new_sandbox(server)


@pytest.fixture
def hooks(tmp_path: Path, pyz: Path) -> Iterator[Hooks]:
    hooks = Hooks(tmp_path / "site", pyz)
    yield hooks
    hooks.close()


@pytest.fixture
def new_start(tmp_path: Path, hooks: Hooks, server: ServerProcess) -> Callable[..., HookedStart]:
    """Make starts, each in a scratch directory of its own."""

    def new(**more: object) -> HookedStart:
        number = len(list(tmp_path.glob("dir_*")))
        return HookedStart(tmp_path / f"dir_{number}", hooks, **{"server": server, **more})  # type: ignore[arg-type]

    return new


@pytest.fixture
def admin(server: ServerProcess) -> Caller:
    return Caller(server.url, server.admin_token)


@pytest.fixture
def workflow() -> str:
    """A workflow that no other test uses."""
    return f"http-{next(_NUMBERS)}"


@pytest.fixture
def subjob(workflow: str) -> str:
    return f"/v1/workflows/{workflow}/subjobs/s"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server started with `htlease serve`, as a user starts it."""
    environment = clean_environment(tmp_path_factory.mktemp("state"))
    process = subprocess.Popen(
        [sys.executable, "-m", "htlease_cli.cli", "serve", "--listen", "127.0.0.1:0"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", first)
    assert found, first
    yield Lab(found[0], environment)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture
def new_job(new_sandbox: NewSandbox) -> NewSandbox:
    """Make scratch directories of jobs that know nothing of us; their ads carry the key."""

    def new(server: ServerProcess, **start: int) -> Sandbox:
        box = new_sandbox(server, **start)
        box.call = ()
        del box.environ["HTLEASE_KEY"]
        box.job_ad["HTLeaseKey"] = box.key
        box.job_ad["Cmd"] = "/home/somebody/sh"
        return box

    return new


@pytest.fixture
def job(new_job: NewSandbox, server: ServerProcess) -> Sandbox:
    return new_job(server)


@pytest.fixture
def new_node(tmp_path: Path) -> NewNode:
    def new(server: ServerProcess) -> DagNode:
        number = next(_NUMBERS)
        return DagNode(tmp_path / f"dag{number}", server, f"dag-scripts-{number}")

    return new


@pytest.fixture
def node(new_node: NewNode, server: ServerProcess) -> DagNode:
    return new_node(server)
