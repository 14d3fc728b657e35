"""Where the demo's job runs: a personal HTCondor pool, or a stand-in for one starter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from htlease_lab.pool import Pool

EXECUTING = 1


class Site(Protocol):
    """What the drill needs of a place that runs jobs."""

    #: An address of this machine that the job can reach.
    address: str

    def describe(self) -> str:
        """Say in one line what runs the job."""

    def submit(self, files: list[Path], description: Path) -> str:
        """Submit a copy of these files and return the job's ID."""

    def evict(self) -> None:
        """Have the running attempt evicted, with a warning (SIGTERM)."""

    def kill_shadow(self) -> None:
        """Kill what HTCondor would have counted this start with, at once."""

    def wait_for(self, found: Callable[[], Any], what: str, timeout_seconds: float) -> Any:
        """Wait for the first true value of `found`; raises when there is none in time."""

    def end(self) -> str:
        """Wait for the job's end and say how it ended."""

    def close(self) -> None:
        """Take everything down."""


class PoolSite:
    """One access point and two execution points of real HTCondor daemons."""

    def __init__(self, suite: str | None) -> None:
        self._pool = Pool("demo", suite)
        self._pool.down()
        self._pool.up()
        self.address = self._pool.ap_address
        self._job = ""
        self._log = Path()

    def describe(self) -> str:
        version = self._pool.run(["condor_version"]).stdout.split()[1]
        machines = self._pool.run(["condor_status", "-af", "Machine"]).stdout.split()
        return f"HTCondor {version}: an access point and {', '.join(sorted(set(machines)))}"

    def submit(self, files: list[Path], description: Path) -> str:
        directory = self._pool.job_directory("phased")
        for file in [*files, description]:
            copy = directory / file.name
            shutil.copy(file, copy)
            owner = directory.stat()
            shutil.chown(copy, owner.st_uid, owner.st_gid)
        done = self._pool.run(["condor_submit", "-terse", description.name], cwd=directory)
        self._job = done.stdout.split("-")[0].strip()
        self._log = directory / "phased.log"
        return self._job

    def evict(self) -> None:
        self._pool.vacate(self._job)

    def kill_shadow(self) -> None:
        self._pool.kill_shadow(self._job)

    def wait_for(self, found: Callable[[], Any], what: str, timeout_seconds: float) -> Any:
        return self._pool.wait_for(found, what, timeout_seconds, interval_seconds=0.2)

    def end(self) -> str:
        self.wait_for(
            lambda: self._pool.job_ad(self._job)["JobStatus"] in (3, 4), "the job to end", 120
        )
        ad = self._pool.job_ad(self._job)
        holds = len(self._pool.events(self._log, 12))
        return (
            f"job {self._job} exit code {ad.get('ExitCode')}, held {holds} times,"
            f" NumJobStarts {ad['NumJobStarts']}, NumShadowStarts {ad['NumShadowStarts']}"
        )

    def close(self) -> None:
        self._pool.down()
