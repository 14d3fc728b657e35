"""The wall clock is set while leases are held: they end by clocks that nobody sets.

libfaketime sets it, for the process that it is preloaded into alone; monotonic clocks go on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.execution import NewSandbox, wait_for
from tests.serving import ServerProcess

from htlease_lab.pool import PoolError, debian

STEPS = ("+7200s", "-7200s")
#: Writes what its clock says, again and again; a preloaded `sleep` would not.
CLOCK = "while [ ! -e go ]; do date +%s > told.new; mv told.new told; done"


@pytest.fixture(scope="module")
def library() -> Path:
    """The library that fakes; skips where it is not and cannot be installed."""
    try:
        if not list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
            debian.install_packages(["libfaketime"], print)
    except (PoolError, OSError) as error:
        pytest.skip(f"no libfaketime: {error}")
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Clock:
    """The wall clock of processes with this environment."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.set("+0s")
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.rename(self._file)


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> Clock:
    return Clock(library, tmp_path / "clock")


@pytest.fixture
def stepped_server(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """A server whose wall clock the test sets."""
    server = ServerProcess(tmp_path / "stepped")
    with monkeypatch.context() as patch:
        for name, value in clock.environ.items():
            patch.setenv(name, value)
        server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_wrappers_clock_costs_no_lease(
    new_sandbox: NewSandbox, server: ServerProcess, clock: Clock, step: str
) -> None:
    box = new_sandbox(server)
    box.python = sys.executable  # the prelude would take the library away from the wrapper
    box.environ |= clock.environ
    script = box.script("clock", CLOCK)
    process = box.start("--ttl", "6", "--wall-time", "600", "--", script)
    told = box.path / "told"
    wait_for(told.exists, "the payload to run")
    before = float(told.read_text())
    clock.set(step)
    wait_for(lambda: abs(float(told.read_text()) - before) > 3600, "the clock to be set")
    seen: list[float] = []

    def is_renewed() -> bool:
        seen.append(server.subjob(box.key)["expires_in_seconds"])
        return seen[-1] > seen[-2] if len(seen) > 1 else False

    wait_for(is_renewed, "a renewal")
    (box.path / "go").touch()
    assert process.wait(60) == 0, box.messages
    (attempt,) = server.subjob(box.key)["attempts"]
    assert attempt["exit_code"] == 0
    assert box.messages == ""


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_servers_clock_neither_ends_a_lease_nor_keeps_one(
    new_sandbox: NewSandbox, stepped_server: ServerProcess, clock: Clock, step: str
) -> None:
    server = stepped_server
    assert "libfaketime" in Path(f"/proc/{server.pid}/maps").read_text()
    held = new_sandbox(server)
    process = held.start("--ttl", "6", "--", "/bin/sh", "-c", "touch runs; exec sleep 300")
    wait_for((held.path / "runs").exists, "the payload to run")
    clock.set(step)
    rival = new_sandbox(server, key=held.key, slot=2)
    assert rival.run("--wait-lease", "0", "--", "/bin/true") == 75
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    again = new_sandbox(server, key=held.key, job_starts=1, shadow_starts=2, slot=2)
    assert again.run("--ttl", "6", "--", "/bin/true") == 0, again.messages
    grants = server.events(held.key, "lease-acquired")
    assert [grant["why"] for grant in grants] == ["first", "expired"]
