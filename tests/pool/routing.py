"""A Job Router on the access point of a pool, with our hooks, and jobs that it routes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.pool.agent import AgentProcess, site_directory
from tests.pool.lab import PROJECT, Lab, TestJob

POLLING_SECONDS = 2
HOOKS = ("translate_job", "update_job_info", "job_finalize", "job_cleanup")

_SITE = """
DAEMON_LIST = $(DAEMON_LIST) JOB_ROUTER
JOB_ROUTER_POLLING_PERIOD = {polling}
JOB_ROUTER_DEBUG = D_FULLDEBUG D_SUB_SECOND
# A mirror of the queue that lags behind would keep finished copies for minutes.
JOB_ROUTER_MAX_JOB_MIRROR_UPDATE_LAG = 20
JOB_ROUTER_SOURCE_JOB_CONSTRAINT = target.JobUniverse =?= 5
JOB_ROUTER_ROUTE_NAMES = Here
JOB_ROUTER_ROUTE_Here @=end
  REQUIREMENTS RouteTo =?= "here"
  UNIVERSE vanilla
  SET Requirements true
@end
HTLEASE_HOOK_DIR = {hooks}
"""


class Agent(AgentProcess):
    """An agent that can be made to hang, and more than one of which can be there."""

    def __init__(self, lab: Lab, directory: Path | None = None) -> None:
        super().__init__(lab, "--poll", "2")
        if directory is not None:
            self.directory = directory
            self.socket = directory / "agent.sock"
            self.log = directory / "agent.log"
            self.state = directory / "agent-state"

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process; one that is not killed is waited for, so that another may come."""
        if self._process is not None:
            # nsenter, which stands in front of it, stops itself when it sees it stopped.
            self.signal(signal.SIGCONT)
        super().stop(number)
        if number != signal.SIGKILL:
            self.lab.pool.wait_for(lambda: not self.socket.exists(), "the agent to end", 20)

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


def install_links(lab: Lab) -> None:
    """Put the pyz and the router's links where the daemons see them."""
    directory = site_directory(lab)
    pyz = directory / "htlease-ep.pyz"
    pyz.write_bytes(lab.pyz.read_bytes())
    pyz.chmod(0o755)
    for hook in HOOKS:
        link = directory / f"router_{hook}"
        if not link.is_symlink():
            link.symlink_to(pyz.name)


def install_router(lab: Lab, more: str = "") -> None:
    """Start a Job Router with our configuration files."""
    install_links(lab)
    shipped = "".join(
        (PROJECT / "hooks/condor" / f"{name}.conf").read_text()
        for name in ("access-point", "job-router")
    )
    site = _SITE.format(polling=POLLING_SECONDS, hooks=site_directory(lab))
    lab.pool.configure("ap", "router", site + shipped + more)
    lab.wait_for(lambda: router_pids(lab), "the Job Router to run", 60)


def router_pids(lab: Lab) -> list[int]:
    """Return the process IDs of the running Job Router, one or none."""
    return [p.pid for p in lab.pool.processes() if p.program == "condor_job_router"]


def kill_router(lab: Lab) -> None:
    """SIGKILL the Job Router and wait until its master has started another."""
    router = lab.pool.daemon("condor_job_router", "ap")
    assert router.send(signal.SIGKILL)
    lab.wait_for(
        lambda: [pid for pid in router_pids(lab) if pid != router.pid], "another router", 60
    )


@dataclass
class RoutedJob:
    """A source job, the copies that the router makes of it, and their subjob."""

    source: TestJob

    @property
    def lab(self) -> Lab:
        return self.source.lab

    def source_ad(self) -> dict[str, Any]:
        return self.lab.pool.job_ad(self.source.job)

    def copies(self) -> list[dict[str, Any]]:
        """Return the ads of the copies in the queue, newest first."""
        ads = [ad for ad in self.lab.pool.jobs() if ad.get("RoutedFromJobId") == self.source.job]
        return sorted(ads, key=lambda ad: -int(ad["ClusterId"]))

    def wait_copy(self, after: int = 0, status: int | None = None) -> dict[str, Any]:
        """Wait for a copy later than cluster `after`, in a state, and return its ad."""

        def found() -> list[dict[str, Any]]:
            return [
                ad
                for ad in self.copies()
                if int(ad["ClusterId"]) > after and status in (None, ad["JobStatus"])
            ]

        ad: dict[str, Any] = self.lab.wait_for(found, f"a copy of {self.source.job}", 90)[0]
        return ad

    def wait_final(self, timeout_seconds: float = 60) -> dict[str, Any]:
        """Wait until the source shows how its subjob ended, and return its ad."""
        self.source.wait_gone(timeout_seconds)
        # JOB_FINALIZE runs at the poll after the one that mirrors the end.
        self.lab.wait_for(
            lambda: "HTLeaseState" in self.source_ad(), f"the state of {self.source.key}", 30
        )
        return self.source_ad()

    def epochs(self) -> list[int]:
        """Return the epoch of each grant."""
        return [grant["epoch"] for grant in self.source.grants()]


def submit_routed(
    lab: Lab,
    name: str,
    behaviour: Mapping[str, Any] | None = None,
    lines: Sequence[str] = (),
    key: str | None = None,
    **options: Any,
) -> RoutedJob:
    """Submit a job that only the router may take."""
    number = lab.submitted + 1
    key = key or f"{name}-{number}/{name}-of-{number}"
    options.setdefault("ttl_seconds", 10)
    job = lab.submit(
        name,
        behaviour,
        lines=[
            'My.RouteTo = "here"',
            "requirements = false",
            f'My.HTLeaseKey = "{key}"',
            *lines,
        ],
        **options,
    )
    return RoutedJob(replace(job, key=key))


@contextmanager
def routed_by(lab: Lab, more: str = "") -> Iterator[Agent]:
    """Have a Job Router with our hooks and an agent for a while."""
    agent = Agent(lab)
    agent.start()
    install_router(lab, more)
    try:
        yield agent
    finally:
        lab.pool.configure("ap", "router", None)
        agent.stop()


def found(lab: Lab, identifier: str) -> list[str]:
    """Return the keys of the subjobs that know an ID."""
    answer = lab.server.ask("GET", f"subjobs?id={quote(identifier, safe='')}")
    return [f"{each['workflow']}/{each['subjob']}" for each in answer["subjobs"]]
