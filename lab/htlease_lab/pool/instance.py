"""Brings one pool up and down, and runs commands inside it. Runs on the host.

Everything a pool writes lies in one directory, everything it runs is found by its enclosure
(as root) or by its CONDOR_CONFIG (otherwise): what a crashed pool left is cleared by name.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from . import debian, enclosure, network, processes, software
from .enclosure import Enclosure
from .errors import PoolError
from .files import JOB_USER, JOB_USER_ID, host_name, locked, write_client_files, write_files
from .network import EXECUTION_POINTS, Network
from .processes import Process

_READY_SECONDS = 60.0
Found = TypeVar("Found")


def base_directory() -> Path:
    """Return where roots and pools are kept: HTLEASE_POOL_DIR, else a place this user may write."""
    chosen = os.environ.get("HTLEASE_POOL_DIR")
    if chosen:
        return Path(chosen).resolve()
    # Below /root the job user could not reach its files.
    return Path(
        "/var/lib/htlease/pool" if os.geteuid() == 0 else "~/.cache/htlease/pool"
    ).expanduser()


def _report_to_stderr(text: str) -> None:
    print(f"htlease: {text}", file=sys.stderr, flush=True)


class Instance:
    """One named pool: an access point and two execution points.

    `suite` is a Debian suite; None means HTLEASE_POOL_SUITE, else an installed HTCondor, else
    the default suite.
    `shared` are host directories that the access point shall see at the same path (submit files).
    """

    def __init__(
        self,
        name: str = "default",
        suite: str | None = None,
        shared: Sequence[Path] = (),
        report: Callable[[str], None] = _report_to_stderr,
    ) -> None:
        if not name.isidentifier() or len(name) > 20:
            raise PoolError(f"Pool name {name!r}: use up to 20 letters, digits and underscores.")
        self.name = name
        self.directory = base_directory() / "pools" / name
        self._suite = suite or os.environ.get("HTLEASE_POOL_SUITE")
        self._shared = tuple(enclosure.shareable(Path(path).resolve()) for path in shared)
        self._report = report

    # Where things are

    @property
    def work_dir(self) -> Path:
        """Directory of the job user, at the same path for the host and the access point."""
        return self.directory / "work"

    @property
    def ap_address(self) -> str:
        """Address of the access point that execution points can reach; listen there."""
        return self.network().ap_address

    @property
    def ap_host(self) -> str:
        """Host name of the access point."""
        return host_name("ap", self.name)

    @property
    def schedd_name(self) -> str:
        """Name of the schedd; one that root did not start has its user's name in front."""
        return self.ap_host if os.geteuid() == 0 else f"{self.job_user}@{self.ap_host}"

    def ep_host(self, ep: str) -> str:
        """Host name of an execution point."""
        return host_name(ep, self.name)

    @property
    def job_user(self) -> str:
        """The account jobs are submitted and run by."""
        return JOB_USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def client_env(self) -> dict[str, str]:
        """Return the environment in which clients outside the pool act as the job user."""
        found = {"CONDOR_CONFIG": str(self.directory / "client/condor_config")}
        if self._state_file.exists() and (server := self.state().get("lease_server")):
            found.update(HTLEASE_URL=server["url"], HTLEASE_ADMIN_TOKEN_FILE=server["token"])
        return found

    def log_files(self) -> list[Path]:
        """Return the daemons' logs."""
        return sorted(
            path
            for host in ("ap", *EXECUTION_POINTS)
            for path in (self.directory / host / "log").glob("*Log*")
        )

    # Up and down

    def up(self) -> None:
        """Start the pool and wait until it takes jobs; one that is up already is left as it is.

        What a crashed pool of this name left is cleared first, its jobs and files included.
        """
        with locked(self.directory.with_suffix(".lock")):
            if self.is_up():
                self._report(f"pool {self.name} is up already")
                return
            self._clear()
            begin = time.monotonic()
            found = software.provide(self._suite, base_directory() / "roots", self._report)
            try:
                self._start(found)
            except BaseException:
                self._clear(keep_files=True)
                raise
            took = time.monotonic() - begin
            self._report(f"pool {self.name} is up after {took:.0f} s ({self.state()['version']})")

    def down(self, purge: bool = False) -> None:
        """End all processes of the pool and remove its network; files stay unless `purge`."""
        with locked(self.directory.with_suffix(".lock")):
            self._clear(keep_files=True)
        if purge:
            shutil.rmtree(self.directory, ignore_errors=True)

    def power_off(self) -> None:
        """SIGKILL all daemons and jobs at once; queue, files and network stay for `power_on`."""
        cage = self._enclosure()

        def are_gone() -> bool:
            # Not what waits for orphans: the enclosure would end with it, and its network.
            left = [p for p in self.processes() if cage is None or not cage.is_own(p.pid, p.parent)]
            for process in left:
                process.send(signal.SIGKILL)
            return not left

        with locked(self.directory.with_suffix(".lock")):
            self.wait_for(are_gone, "the end of the pool's processes", 30)

    def power_on(self) -> None:
        """Start the daemons of a pool again that `power_off` has ended."""
        with locked(self.directory.with_suffix(".lock")):
            self._start_daemons()

    def is_up(self) -> bool:
        """Say whether the pool was started completely and its masters are alive."""
        if not self._state_file.exists() or "version" not in self.state():
            return False
        # A test may run a pool of its own beside it, under another name.
        hosts = {p.host for p in self.processes() if p.program == "condor_master"}
        return hosts >= {"ap", *EXECUTION_POINTS}

    def state(self) -> dict[str, Any]:
        """Return what is recorded about the running pool; raises PoolError if there is none."""
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text())
        except FileNotFoundError:
            raise PoolError(
                f"Pool {self.name} is not up: start it with `htlease pool up --name {self.name}`."
            ) from None
        return state

    def _start(self, found: software.Software) -> None:
        as_root = os.geteuid() == 0
        self.directory.mkdir(parents=True, exist_ok=True)
        net = self._build_network() if as_root else self._loopback("not started by root")
        self._save({"number": net.number, "bridged": net.bridged, "software": found.label})
        self.record(root=str(found.root or "/"), shared=[str(path) for path in self._shared])
        facts = write_files(self.directory, self.name, self.job_user, net, found)
        if as_root:
            shown = [self.directory, *self._shared] if found.root else []
            cage = enclosure.start(found.root, self.ap_host, self.directory / "etc", shown)
            self.record(pid=cage.pid, started=cage.started)
        program = facts.program
        self.record(path=f"{program.bin}:{program.sbin}:/usr/bin:/usr/sbin:/bin:/sbin")
        self._start_daemons()
        identity = f"{self.job_user}@{facts.domain}"
        mint = ["condor_token_create", "-identity", identity]
        token = self.run(mint, as_root=True).stdout
        write_client_files(self.directory, self.schedd_name, facts, token)
        self.record(version=self.run(["condor_version"]).stdout.split()[1])

    def _start_daemons(self) -> None:
        collector = self.directory / "ap/log/.collector_address"
        collector.unlink(missing_ok=True)
        self._start_master("ap")
        self.wait_for(collector.exists, "the collector", _READY_SECONDS)
        for ep in EXECUTION_POINTS:
            self._start_master(ep)
        expected = {"Scheduler", "Negotiator", *(self.ep_host(ep) for ep in EXECUTION_POINTS)}
        self.wait_for(
            lambda: expected <= self.advertised(),
            f"{', '.join(sorted(expected))} in the collector (see {self.directory}/*/log)",
            _READY_SECONDS,
        )

    def advertised(self) -> set[str]:
        """Return types and machines of all ads in the collector."""
        listed = self.run(["condor_status", "-any", "-af", "MyType", "Machine"], check=False).stdout
        return {word for line in listed.splitlines() for word in line.split()}

    def _build_network(self) -> Network:
        try:
            net = network.choose(self.name)
            if not shutil.which("ip"):
                debian.install_packages(["iproute2"], self._report)
            self._save({"number": net.number, "bridged": True})
            network.build(net)
        except PoolError as refusal:
            self._clear(keep_files=True)
            return self._loopback(str(refusal))
        return net

    def _loopback(self, why: str) -> Network:
        self._report(f"no network of its own ({why}): using loopback, where `cut` is not possible")
        return Network(network.choose(self.name).number, bridged=False)

    def _start_master(self, host: str) -> None:
        argv = ["condor_master"]
        net, cage = self.network(), self._enclosure()
        if cage and host != "ap":
            name = f"echo {self.ep_host(host)} > /proc/sys/kernel/hostname"
            private = [self.directory / "ap", self.work_dir]
            shared = map(Path, self.state()["shared"])
            cover = enclosure.hiding(self.directory, [*shared], private)
            script = f"{name}\n{cover}\nexec condor_master"
            argv = ["unshare", "--mount", "--uts", "--", "sh", "-ec", script]
        joined = net.namespace_file(host) if net.bridged and host != "ap" else None
        command = self._inside(argv, self._environment(host), Path("/"), network_file=joined)
        processes.run(command, argv, check=True, input="", timeout_seconds=60)

    def _clear(self, keep_files: bool = False) -> None:
        self._end_processes()
        if self._state_file.exists():
            server = self.state().get("lease_server", {})
            if "started" in server:
                Enclosure(server["pid"], server["started"]).end()
            network.dismantle(self.network())
            self._state_file.unlink()
        if not keep_files:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end_processes(self) -> None:
        cage = self._enclosure()
        if cage:
            cage.end()
            self.wait_for(lambda: not cage.alive(), "the end of the pool's processes", 30)
        else:
            self.wait_for(self._all_killed, "the end of the pool's processes", 30)

    def _all_killed(self) -> bool:
        return not [p for p in self.processes() if p.send(signal.SIGKILL)]

    # Processes and commands

    def processes(self) -> list[Process]:
        """Return all processes of the pool."""
        cage = self._enclosure()
        if cage:
            return processes.in_enclosure(cage.pid) if cage.alive() else []
        return processes.with_config(self.directory / "etc")

    def run(
        self,
        argv: Sequence[str],
        cwd: Path | None = None,
        check: bool = True,
        as_root: bool = False,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout_seconds: float = 120,
        on: str = "ap",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the job user, on the access point or an execution point.

        HTCondor's tools are on PATH. Raises PoolError with the command's stderr if `check` and it
        fails, and at the timeout.
        """
        command = self.command(argv, cwd, as_root, env, on)
        return processes.run(command, argv, check, input or "", timeout_seconds)

    def command(
        self,
        argv: Sequence[str],
        cwd: Path | None = None,
        as_root: bool = False,
        env: Mapping[str, str] | None = None,
        on: str = "ap",
    ) -> list[str]:
        """Return the host's command that does what `run` does."""
        return self._inside(
            argv,
            {**self._environment(on), **self._lease_server(), **(env or {})},
            cwd or self.work_dir,
            ids=None if as_root or os.geteuid() else (JOB_USER_ID, JOB_USER_ID),
            beside=None if on == "ap" else processes.master_on(on, self.processes()),
        )

    def shows(self, directory: Path) -> bool:
        """Say whether the access point sees this directory at the same path."""
        state = self.state()
        if state["software"] == "installed":
            return True
        return any(directory.is_relative_to(shown) for shown in (self.directory, *state["shared"]))

    def _lease_server(self) -> dict[str, str]:
        server = self.state().get("lease_server")
        return {"HTLEASE_URL": server["url"]} if server else {}

    def _environment(self, host: str) -> dict[str, str]:
        return {
            "CONDOR_CONFIG": str(self.directory / "etc" / f"{host}.config"),
            "PATH": f"{self.directory}/htlease/bin:{self.state()['path']}",
            "HOME": str(self.work_dir),
            "USER": self.job_user,
            "LOGNAME": self.job_user,
            "LANG": "C.UTF-8",
        }

    def _inside(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        ids: tuple[int, int] | None = None,
        network_file: Path | None = None,
        beside: Process | None = None,
    ) -> list[str]:
        cage = self._enclosure()
        if cage and beside:
            cage, network_file = Enclosure(beside.pid, beside.started), beside.network_file
        if cage:
            return cage.command(argv, environment, directory, ids=ids, network=network_file)
        return enclosure.plain_command(argv, environment, directory)

    def wait_for(
        self,
        condition: Callable[[], Found],
        what: str,
        timeout_seconds: float = 60,
        interval_seconds: float = 0.2,
    ) -> Found:
        """Call `condition` until it returns something true, and return that.

        Raises PoolError at the deadline.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise PoolError(f"Waited {timeout_seconds:g} s in vain for {what}.")
            time.sleep(interval_seconds)
        return result

    # Recorded state

    @property
    def _state_file(self) -> Path:
        return self.directory / "state.json"

    def _save(self, state: Mapping[str, Any]) -> None:
        self._state_file.write_text(json.dumps(state, indent=1) + "\n")

    def record(self, **values: Any) -> None:
        """Add to what is recorded about the running pool."""
        self._save({**self.state(), **values})

    def network(self) -> Network:
        """Return the addresses of the running pool."""
        state = self.state()
        return Network(state["number"], state["bridged"])

    def _enclosure(self) -> Enclosure | None:
        if not self._state_file.exists() or "pid" not in (state := self.state()):
            return None
        return Enclosure(state["pid"], state["started"])
