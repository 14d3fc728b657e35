"""A pool that was set up by the manual's words, and jobs that have never heard of htlease."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.pool.agent import _PACKAGES, _PURE
from tests.pool.lab import PROJECT, Lab, TestJob
from tests.pool.test_restarts import FAULTS

from htlease_lab.pool.network import EXECUTION_POINTS

#: As `/usr/bin/htlease` would be: the command, with what it needs.
_COMMAND = """\
#!/bin/sh
exec env PYTHONPATH={path} {pure} python3 -B -m htlease_cli.cli "$@" >> {log} 2>&1
"""
_JOB = """\
executable = /bin/sleep
arguments = {seconds}
should_transfer_files = YES
request_memory = 64
request_disk = 1
output = out
error = err
log = log
queue
"""


class InstalledSite:
    """Access point and execution points with nothing but our two files and their macros."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.roles: tuple[str, ...] = ("ap", "ep")
        self.directory = lab.pool.directory / "installed-site"
        self.directory.mkdir(mode=0o755)
        self.log = self.directory / "agent.log"
        self.log.touch()
        self.log.chmod(0o666)
        self.pyz = self.directory / "new.pyz"
        self.pyz.write_bytes(lab.pyz.read_bytes())
        self.command = self.directory / "htlease"
        library = self.directory / "lib"
        library.mkdir()
        for package in _PACKAGES:
            place = Path(str(package.__file__))
            place = place.parent if place.name == "__init__.py" else place
            (library / place.name).symlink_to(place)
        packages = [p for p in sys.path if Path(p).is_relative_to(PROJECT) and ".venv" not in p]
        self.environment = {"PYTHONPATH": ":".join([*packages, str(library)]), **_PURE}
        self.command.write_text(
            _COMMAND.format(
                path=self.environment["PYTHONPATH"],
                pure=" ".join(f"{name}={value}" for name, value in _PURE.items()),
                log=self.log,
            )
        )
        self.command.chmod(0o755)
        self.token = self.directory / "admin.token"
        self.token.write_text(lab.server.admin_token)
        self.token.chmod(0o600)
        if os.geteuid() == 0:
            spool = (lab.pool.directory / "ap" / "spool").stat()
            os.chown(self.token, spool.st_uid, spool.st_gid)

    def hooks(self, verb: str, *options: str | Path) -> str:
        """Run `htlease hooks` on the access point as root."""
        given = [f"{name}={value}" for name, value in self.environment.items()]
        command = ["python3", "-B", "-m", "htlease_cli.cli", "hooks", verb, *map(str, options)]
        return self.lab.pool.run(["env", *given, *command], as_root=True).stdout

    def install(self, *, wraps_jobs: bool = False, has_router: bool = False) -> None:
        """Set up execution points, then the access point, as the manual says."""
        where = ["--hook-dir", f"{self.directory}/hooks", "--pyz", str(self.pyz)]
        macros = {
            "HTLEASE_TTL": "30",
            "HTLEASE_UPDATE_INTERVAL": "3",
            "HTLEASE_AGENT": self.command,
            "HTLEASE_ADMIN_TOKEN_FILE": self.token,
        }
        more = [part for name in macros for part in ("--set", f"{name}={macros[name]}")]
        url = ["--url", self.lab.server.url]
        # The execution points see this directory but not this command, so they get its file.
        wrap = ("--set", "HTLEASE_WRAP_JOBS=True") if wraps_jobs else ()
        self.hooks("install", "--role", "ep", *url, *where, *more[:4], *wrap)
        installed = self.lab.pool.directory / "ap" / "config.d" / "60-htlease-ep.conf"
        for ep in EXECUTION_POINTS:
            self.lab.pool.configure(ep, "60-htlease-ep", installed.read_text())
        if has_router:
            self.roles = ("router", *self.roles)
            self.hooks("install", "--role", "router", *where)
        self.hooks("install", "--role", "ap", *url, *where, *more[4:], "--reconfig")
        socket = self.lab.pool.directory / "ap" / "lock" / "htlease.agent"
        self.lab.wait_for(socket.exists, f"the agent, see {self.log}", 60)

    def uninstall(self) -> None:
        for role in self.roles:
            self.hooks("uninstall", "--role", role, "--reconfig")
        for ep in EXECUTION_POINTS:
            self.lab.pool.configure(ep, "60-htlease-ep", None)

    def submit(self, seconds: int) -> TestJob:
        self.lab.submitted += 1
        directory = self.lab.pool.job_directory(f"bare-{self.lab.submitted}")
        cluster = self.lab.pool.submit(_JOB.format(seconds=seconds), cwd=directory)
        key = self.lab.pool.job_ad(f"{cluster}.0")["HTLeaseKey"]
        return TestJob(self.lab, f"{cluster}.0", key, directory)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[InstalledSite]:
    site = InstalledSite(lab)
    site.install()
    yield site
    site.uninstall()
    shutil.rmtree(site.directory)


def has_entered(job: TestJob, fence: int) -> bool:
    """Tell whether a start has entered the phase."""
    global_job_id = quote(job.lab.pool.job_ad(job.job)["GlobalJobId"])
    if not job.lab.server.ask("GET", f"subjobs?id={global_job_id}")["subjobs"]:
        return False
    return any(e["event"] == "phase-entered" and e["fence"] == fence for e in job.history())


def wait_entered(job: TestJob, fence: int) -> None:
    job.lab.wait_for(lambda: has_entered(job, fence), f"fence {fence} of {job.key}", 120)


def starts(job: TestJob) -> list[dict[str, object]]:
    """Return the grants to the job itself; the agent, which reports its end, has one too."""
    return [grant for grant in job.grants() if grant["kind"] == "job"]


def test_a_bare_job_is_leased_runs_and_is_complete_when_its_output_is_back(
    site: InstalledSite,
) -> None:
    status = site.hooks("status", "--pyz", site.pyz)
    assert "problem" not in status and "warning" not in status, status
    job = site.submit(8)
    wait_entered(job, 1)
    assert job.wait_gone()["ExitCode"] == 0
    job.wait_status("complete", 90)
    assert [grant["fence"] for grant in starts(job)] == [1], job.explain()


def test_bare_jobs_reclaim_their_phase_whatever_ended_their_first_start(
    site: InstalledSite,
) -> None:
    jobs = {name: site.submit(25) for name in FAULTS}
    for job in jobs.values():
        wait_entered(job, 1)
    for name, job in jobs.items():
        FAULTS[name](site.lab, job)
    for job in jobs.values():
        wait_entered(job, 2)
    for name, job in jobs.items():
        assert job.wait_gone(120)["ExitCode"] == 0, name
        job.wait_status("complete", 90)
        first, second = starts(job)
        assert (first["fence"], second["fence"]) == (1, 2), f"{name}\n{job.explain()}"
        assert second["attempt_number"] == 2, f"{name}\n{job.explain()}"
        entered = [e["phase"] for e in job.history() if e["event"] == "phase-entered"]
        assert entered[:2] == ["run", "run"], f"{name}\n{job.explain()}"
