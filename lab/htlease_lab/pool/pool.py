"""A pool with its jobs and faults: submit, wait, break things on purpose. Runs on the host."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import config, network, processes
from .errors import PoolError
from .instance import Instance
from .network import EXECUTION_POINTS
from .processes import Process

JOB_STATUS = {1: "idle", 2: "running", 3: "removed", 4: "completed", 5: "held", 7: "suspended"}
_EVENT = re.compile(
    r"^(?P<number>\d{3}) \((?P<cluster>\d+)\.(?P<proc>\d+)\.\d+\) "
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?)Z? (?P<text>.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Event:
    """One entry of a job event log; `time` is UTC, `text` all lines of the entry."""

    number: int
    cluster: int
    proc: int
    time: datetime
    text: str


def parse_events(text: str) -> list[Event]:
    """Parse an event log written with this pool's settings, but no unfinished last entry."""
    events = []
    for entry in text.split("\n...\n")[:-1]:
        found = _EVENT.search(entry)
        if found:
            events.append(
                Event(
                    int(found["number"]),
                    int(found["cluster"]),
                    int(found["proc"]),
                    datetime.fromisoformat(found["time"]),
                    entry[found.start("text") :],
                )
            )
    return events


class Pool(Instance):
    """A personal pool. Jobs are named by their id, `"12.0"`."""

    # Jobs

    def job_directory(self, name: str) -> Path:
        """Make a directory in `work_dir` that belongs to the job user, and return it."""
        directory = self.work_dir / name
        directory.mkdir(parents=True)
        if os.geteuid() == 0:
            owner = self.work_dir.stat()
            os.chown(directory, owner.st_uid, owner.st_gid)
        return directory

    def submit(self, description: str, cwd: Path | None = None) -> int:
        """Submit a submit description as the job user, and return the cluster id."""
        done = self.run(["condor_submit", "-terse", "-"], cwd=cwd, input=description)
        first = done.stdout.split("-")[0].strip()
        return int(first.split(".")[0])

    def job_ad(self, job: str) -> dict[str, Any]:
        """Return the job's ad from the queue, or from the history when it has left the queue.

        Expressions that are not literals come as text in `/Expr(...)/`.
        """
        for command in (["condor_q"], ["condor_history", "-limit", "1"]):
            text = self.run([*command, job, "-json"]).stdout.strip()
            ads: list[dict[str, Any]] = json.loads(text) if text else []
            if ads:
                return ads[0]
        raise PoolError(f"There is no job {job}, neither in the queue nor in the history.")

    def jobs(self) -> list[dict[str, Any]]:
        """Return the ads of all jobs in the queue."""
        text = self.run(["condor_q", "-allusers", "-json"]).stdout.strip()
        ads: list[dict[str, Any]] = json.loads(text) if text else []
        return ads

    def status(self, job: str) -> str:
        """Return the job's state in words: idle, running, removed, completed, held, suspended."""
        number = self.job_ad(job)["JobStatus"]
        return JOB_STATUS.get(number, f"JobStatus {number}")

    def wait_status(self, job: str, status: str, timeout_seconds: float = 60) -> None:
        """Wait until the job is in that state."""
        self.wait_for(
            lambda: self.status(job) == status, f"job {job} to be {status}", timeout_seconds
        )

    def events(self, log: Path, number: int | None = None) -> list[Event]:
        """Return the events of a job event log, or those with this number."""
        if not log.exists():
            return []
        return [e for e in parse_events(log.read_text()) if number in (None, e.number)]

    def wait_event(
        self, log: Path, number: int, count: int = 1, timeout_seconds: float = 60
    ) -> Event:
        """Wait for the `count`th event of that number in the log, and return it."""
        return self.wait_for(
            lambda: self.events(log, number)[count - 1 : count],
            f"event {number:03} number {count} in {log}",
            timeout_seconds,
            interval_seconds=0.05,
        )[0]

    # Configuration

    def configure(self, host: str, name: str, text: str | None) -> None:
        """Give the daemons of `ap`, `ep1` or `ep2` a further configuration file, or take it away.

        Returns when they have read it; one that `text` puts into DAEMON_LIST is started by then
        or soon after.
        """
        folder = config.site_directory(self.directory / host)
        file = folder / f"{name}.conf"
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)
        self.reconfigure(host)

    def reconfigure(self, host: str) -> None:
        """Let the daemons of a host read their files again, and return when they have."""
        folder = config.site_directory(self.directory / host)
        serial = str(time.monotonic_ns())
        (folder / "zz-serial.conf").write_text(f"MINIPOOL_CONFIG_SERIAL = {serial}\n")
        master = self.daemon("condor_master", host)
        master.send(signal.SIGHUP)
        names = {"ap": [("-schedd", self.schedd_name), ("-master", self.ap_host)]}
        asked = names.get(host, [("-startd", self.ep_host(host)), ("-master", self.ep_host(host))])
        for daemon, daemon_name in asked:
            ask = ["condor_config_val", daemon, "-name", daemon_name, "MINIPOOL_CONFIG_SERIAL"]

            def has_read(ask: list[str] = ask) -> bool:
                return self.run(ask, check=False).stdout.strip() == serial

            self.wait_for(has_read, f"{daemon_name}{daemon} to read its configuration", 60)

    # Faults that HTCondor is asked for

    def vacate(self, job: str, fast: bool = False) -> None:
        """Evict the job from its slot; `fast` kills it without a TERM."""
        self.run(["condor_vacate_job", *(["-fast"] if fast else []), job])

    def hold(self, job: str) -> None:
        """Hold the job."""
        self.run(["condor_hold", job])

    def release(self, job: str) -> None:
        """Release the job."""
        self.run(["condor_release", job])

    def remove(self, job: str) -> None:
        """Remove the job."""
        self.run(["condor_rm", job])

    def suspend(self, job: str) -> None:
        """Stop the job's processes where they run."""
        self.run(["condor_suspend", job])

    def continue_(self, job: str) -> None:
        """Let a suspended job go on."""
        self.run(["condor_continue", job])

    def drain(self, ep: str, how: str) -> None:
        """Let an execution point give up its jobs, and take new ones when all have ended.

        `how` is `graceful` (after their retirement), `quick` (at once, with the time to vacate)
        or `fast` (killed). Source: condor_drain(1).
        """
        argv = ["condor_drain", f"-{how}", "-resume-on-completion", self.ep_host(ep)]
        self.run(argv, as_root=True)

    # Faults that hit processes

    def shadow(self, job: str) -> Process:
        """Return the job's shadow."""
        return processes.shadow_of(job, self.processes())

    def starters(self, job: str) -> list[Process]:
        """Return the job's living starters, newest start first."""
        execute = [self.directory / "ap/local_execute"]
        execute += [self.directory / ep / "execute" for ep in EXECUTION_POINTS]
        return processes.starters_of(job, execute, self.processes())

    def starter(self, job: str) -> Process:
        """Return the starter of the job's newest start."""
        starters = self.starters(job)
        if not starters:
            raise PoolError(f"Job {job} has no starter: it is not running.")
        return starters[0]

    def family(self, starter: Process) -> list[Process]:
        """Return a starter and all below it: the payload and its children."""
        return [starter, *processes.descendants([starter], self.processes())]

    def ep_of(self, starter: Process) -> str:
        """Return the execution point a starter runs on, or `ap` for a local universe job."""
        return starter.host

    def kill_shadow(self, job: str) -> None:
        """SIGKILL the job's shadow."""
        self.kill(self.shadow(job))

    def kill_starter(self, job: str) -> None:
        """SIGKILL the starter of the job's newest start; its payload is left to the startd."""
        self.kill(self.starter(job))

    def kill_startd(self, ep: str) -> None:
        """SIGKILL the startd of an execution point; its master starts another."""
        self.kill(self.daemon("condor_startd", ep))

    def kill_schedd(self) -> None:
        """SIGKILL the schedd; its master starts another."""
        self.kill(self.daemon("condor_schedd", "ap"))

    def daemon(self, program: str, host: str) -> Process:
        """Return a daemon of `ap`, `ep1` or `ep2`."""
        for process in self.processes():
            if (process.program, process.host) == (program, host):
                return process
        raise PoolError(f"There is no {program} on {host} of pool {self.name}.")

    def restart_schedd(self) -> None:
        """Restart the schedd in an orderly way and wait until it answers."""
        before = self.daemon("condor_schedd", "ap").pid
        self.run(["condor_restart", "-daemon", "schedd"], as_root=True)
        self.wait_for(lambda: self._new_schedd(before), "the restarted schedd")

    def _new_schedd(self, before: int) -> bool:
        running = {p.pid for p in self.processes() if p.program == "condor_schedd"}
        return bool(running - {before}) and self.run(["condor_q"], check=False).returncode == 0

    def freeze(self, job: str) -> list[Process]:
        """SIGSTOP the job's newest starter, then its payload; return what was stopped."""
        starter = self.starter(job)
        return self.wait_for(
            lambda: self._stopped_family(starter),
            f"all of job {job} to stop",
            interval_seconds=0.01,
        )

    def _stopped_family(self, starter: Process) -> list[Process]:
        # A child made in the meantime is stopped in the next round.
        family = self.family(starter)
        moving = {p.pid: p for p in family if not p.frozen}
        for process in family:
            parent = moving.get(process.parent)
            if process.frozen and parent and parent.argv == process.argv:
                # Between vfork and exec a stopped child keeps its parent from stopping.
                process.send(signal.SIGCONT)
        for process in moving.values():
            process.send(signal.SIGSTOP)
        return [] if moving else family

    def thaw(self, job: str) -> list[Process]:
        """SIGCONT every frozen starter of the job with its payload; return what goes on."""
        frozen = [s for s in self.starters(job) if s.frozen]
        if not frozen:
            raise PoolError(f"Job {job} has no frozen starter.")
        woken = [process for starter in frozen for process in self.family(starter)]
        for process in reversed(woken):
            process.send(signal.SIGCONT)
        return woken

    def cut_network(self, ep: str) -> None:
        """Unplug an execution point from the network."""
        network.set_cable(self.network(), ep, plugged=False)

    def heal_network(self, ep: str) -> None:
        """Plug an execution point in again."""
        network.set_cable(self.network(), ep, plugged=True)

    def kill(self, process: Process) -> None:
        """SIGKILL a process of the pool; one that has ended by itself is dead enough."""
        process.send(signal.SIGKILL)
