"""Execution points that have the hooks, and jobs that know nothing of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.pool.lab import PROJECT, Lab, TestJob, write_for_job

from htlease_lab.pool.network import EXECUTION_POINTS

CONFIGURATION = PROJECT / "hooks" / "condor" / "execution-point.conf"
LINKS = ("prepare_job_before_transfer", "prepare_job", "update_job_info", "job_exit")
#: Short enough for a test; the relations between them are those of the defaults.
QUICK = {
    "HTLEASE_TTL": "12",
    "HTLEASE_UPDATE_INTERVAL": "3",
    "HTLEASE_WAIT_LEASE": "2",
    "HTLEASE_WAIT_SERVER": "4",
}


class HookedSite:
    """Both execution points of a lab's pool."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.pool.directory / "site"
        self.directory.mkdir(mode=0o755, exist_ok=True)
        pyz = self.directory / "htlease-ep.pyz"
        pyz.write_bytes(lab.pyz.read_bytes())
        pyz.chmod(0o755)
        for name in LINKS:
            link = self.directory / name
            link.unlink(missing_ok=True)
            link.symlink_to(pyz.name)

    def configure(self, *, more: str = "", **macros: str) -> None:
        """Give the execution points our configuration file with these macros before it."""
        values = {
            "HTLEASE_URL": self.lab.server.url,
            "HTLEASE_HOOK_DIR": str(self.directory),
            **QUICK,
            **macros,
        }
        lines = [f"{name} = {value}" for name, value in values.items()]
        text = "\n".join([*lines, CONFIGURATION.read_text(), more])
        for ep in EXECUTION_POINTS:
            self.lab.pool.configure(ep, "htlease", text)

    def remove(self) -> None:
        """Leave execution points without hooks."""
        for ep in EXECUTION_POINTS:
            self.lab.pool.configure(ep, "htlease", None)

    def program(self, name: str, text: str) -> Path:
        """Put a program of the site's own beside the hooks."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def submit(
        self,
        name: str,
        *lines: str,
        script: str | None = None,
        lab: Lab | None = None,
        key: str | None = None,
        token: str = "chirp",
        inputs: Sequence[str] = (),
        earlier: Mapping[str, str] | None = None,
        shares: bool = False,
    ) -> TestJob:
        """Submit a job whose executable is /bin/sleep, or a script of its own.

        `token` says how it travels: by chirp, as the access point's hook would give it; in a
        file that the user transfers; or "none". `earlier` files lie where outputs go. `lab` is one
        with another server.
        """
        lab = lab or self.lab
        lab.submitted += 1
        workflow = f"{name}-{lab.submitted}"
        key = key or f"{workflow}/{workflow}"
        make = lab.shared_directory if shares else lab.pool.job_directory
        directory = make(workflow)
        text = lab.token(key.split("/")[0])
        description = [
            "request_cpus = 1",
            "request_memory = 64",
            "request_disk = 1",
            "job_lease_duration = 40",
            "job_max_vacate_time = 5",
            "output = out",
            "error = err",
            "log = log",
            f'+HTLeaseKey = "{key}"',
            f'+HTLeaseURL = "{lab.server.url}"',
        ]
        if script is None:
            description += ["executable = /bin/sleep", "arguments = 300"]
            description += ["transfer_executable = False"]
        else:
            write_for_job(directory / "job.sh", f"#!/bin/sh\n{script}\n".encode(), 0o755)
            description += ["executable = job.sh"]
        for file, content in (earlier or {}).items():
            write_for_job(directory / file, content.encode())
        files = list(inputs)
        for file in inputs:
            write_for_job(directory / file, b"input\n")
        if token == "file":
            write_for_job(directory / "htlease.token", text.encode(), 0o600)
            files.append("htlease.token")
        elif token == "chirp":
            description += [f'+_condor_priv_HTLeaseToken = "{text}"', "+WantIOProxy = True"]
        if shares:
            # Which of the two file systems is shared, HTCondor cannot know.
            description += ["should_transfer_files = NO", "requirements = true"]
        else:
            description += ["should_transfer_files = YES"]
            description += [f"transfer_input_files = {', '.join(files)}"] if files else []
        text = "\n".join([*description, *lines, "queue"])
        cluster = lab.pool.submit(text + "\n", cwd=directory)
        return TestJob(lab, f"{cluster}.0", key, directory)


def wait_fence(job: TestJob, fence: int, seconds: float = 90) -> None:
    """Wait until a start of the job holds the lease and the server knows that it runs."""

    def runs() -> bool:
        entered = [e["fence"] for e in job.history() if e["event"] == "phase-entered"]
        return fence in entered

    job.lab.wait_for(lambda: job.is_known() and runs(), f"{job.key} to run as {fence}", seconds)
