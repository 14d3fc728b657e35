"""A million live leases: memory, acquires at 1,000 a second, and the start after a SIGKILL.

The rows are written by the server's own deciding and store, in this process and before the server
starts: through HTTP the million would take two minutes more and leave the same file.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.jobs import NONCE, Workflows, checked
from bench.load import open_loop
from bench.machine import Running
from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease_server.engine.batch import PendingRequest
from htlease_server.engine.downtime import steady_clock
from htlease_server.engine.execute import execute
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.models.request_models import CommandRequest
from htlease_server.store.sqlite.sqlite_store import SqliteStore

_WORKFLOWS = 1000
_AT_ONCE = 2000
_TTL_SECONDS = 3600.0
_PLAN = Plan((PhaseSpec("stage-in"), PhaseSpec("compute", "resume"), PhaseSpec("stage-out")))


class _Nobody:
    """Waits for no answer."""

    def done(self) -> bool:
        """Tell that no answer is wanted."""
        return True

    def set_result(self, result: object, /) -> None:
        """Take no answer."""


def fill(path: Path, leases: int) -> None:
    """Grant a number of leases in a new store."""
    clock = steady_clock()
    store = SqliteStore(path)
    states = InMemoryStates(store, clock)
    command = m.Acquire(
        NONCE, evidence=Evidence(1, 1, 1795225431), ttl_seconds=_TTL_SECONDS, plan=_PLAN
    )
    for start in range(0, leases, _AT_ONCE):
        batch = states.open()
        for number in range(start, min(start + _AT_ONCE, leases)):
            workflow, subjob = divmod(number, leases // _WORKFLOWS)
            key = SubjobKey(f"live-{workflow}", f"s-{subjob:06d}")
            job = f"ap1.example.org#{number}.0#1795225431"
            asked = dataclasses.replace(command, global_job_id=job, host="ep1.example.org")
            sent = CommandRequest(asked, f"fill-{number}", None, number.to_bytes(16, "big"))
            execute(batch, states, PendingRequest(key, sent, "admin", _Nobody()))
        batch.is_last = start + _AT_ONCE >= leases
        states.prepare(batch)
        store.write(batch.write_set)
        states.wrote(batch)
        states.cache.shrink()
    states.close()


def measure_million(directory: Path, leases: int) -> dict[str, Any]:
    """Measure over a number of live leases."""
    filled_at = time.monotonic()
    fill(directory / "htlease.sqlite3", leases)
    filled_seconds = time.monotonic() - filled_at
    size_mib = (directory / "htlease.sqlite3").stat().st_size / 2**20
    running, process, _ = _started(directory)
    try:
        requests = list(_renewals(running, leases))
        renewed = checked(open_loop(running.port, iter(requests), 1000, seconds=10))
        new = Workflows(running, "new")
        acquires = [new.acquire(name, number) for number in range(160) for name in new.names]
        acquired = checked(open_loop(running.port, iter(acquires), 1000, seconds=10))
        memory_mib = running.rss_mib()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    running, process, started_seconds = _started(directory)
    after_mib = running.rss_mib()
    process.terminate()
    process.wait(30)
    return {
        "leases": leases,
        "filled_in_seconds": round(filled_seconds),
        "store_mib": round(size_mib),
        "server_rss_mib": round(memory_mib),
        "server_rss_mib_after_start": round(after_mib),
        "start_after_sigkill_seconds": round(started_seconds, 2),
        "acquires_at_1000_per_second": _ms(acquired),
        "renewals_at_1000_per_second": _ms(renewed),
    }


def _ms(outcome: Any) -> dict[str, float]:
    return {f"p{p}_ms": round(outcome.percentile_ms(p), 2) for p in (50, 99, 100)}


def _renewals(running: Running, leases: int) -> Iterator[bytes]:
    live = Workflows(running, "live", count=64)
    for number in range(10_000):
        name = live.names[number % 64]
        yield live.renew(name, number * 37 % (leases // _WORKFLOWS))


def _started(directory: Path) -> tuple[Running, subprocess.Popen[str], float]:
    """Start a server; return it with the seconds until it was ready and had taken a write."""
    began = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "htlease_server", "--listen", "127.0.0.1:0"),
            *("--state-dir", str(directory), "--log-level", "warning"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
            break
        except urllib.error.HTTPError:
            time.sleep(0.05)
    token = (directory / "admin.token").read_text().strip()
    running = Running(process.pid, int(url.rpartition(":")[2]), token)
    Workflows(running, f"first-{os.getpid()}-{process.pid}", count=1)
    return running, process, time.monotonic() - began
