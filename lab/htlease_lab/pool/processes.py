"""Finds and signals the processes of one pool, in whatever namespaces. Runs on the host."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .enclosure import start_time
from .errors import PoolError

_AD_LINE = re.compile(r"^(ClusterId|ProcId|NumShadowStarts)\s*=\s*(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """One process of the pool; `inner_pid` is its number inside the pool's PID namespace."""

    pid: int
    inner_pid: int
    parent: int
    argv: tuple[str, ...]
    started: str

    @property
    def program(self) -> str:
        """File name of the program it was started as."""
        return Path(self.argv[0]).name if self.argv else ""

    @property
    def config(self) -> str:
        """The CONDOR_CONFIG it was started with, or ''."""
        try:
            variables = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return ""
        prefix = b"CONDOR_CONFIG="
        return next((os.fsdecode(v[len(prefix) :]) for v in variables if v.startswith(prefix)), "")

    @property
    def host(self) -> str:
        """`ap`, `ep1` or `ep2` for a daemon of the pool: the name of its CONDOR_CONFIG."""
        return Path(self.config).stem

    @property
    def network_file(self) -> Path:
        """The file by which to join its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")

    @property
    def frozen(self) -> bool:
        """Say whether it is stopped by a signal."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def send(self, number: signal.Signals) -> bool:
        """Signal it, and only it; return False if it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if start_time(self.pid) != self.started:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def in_enclosure(first_pid: int) -> list[Process]:
    """Return the living processes in the PID namespace of `first_pid`."""
    try:
        namespace = Path(f"/proc/{first_pid}/ns/pid").readlink()
    except FileNotFoundError:
        return []
    return [p for pid in _all_pids() if (p := _read(pid, namespace))]


def with_config(directory: Path) -> list[Process]:
    """Return this user's processes with a CONDOR_CONFIG in `directory`, and their descendants."""
    everything = [p for pid in _all_pids() if (p := _read(pid, None))]
    ours = [p for p in everything if p.config.startswith(f"{directory}/")]
    return list({p.pid: p for p in (*ours, *descendants(ours, everything))}.values())


def descendants(ancestors: Iterable[Process], among: Iterable[Process]) -> list[Process]:
    """Return the children of `ancestors`, their children, and so on."""
    children: dict[int, list[Process]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [p.pid for p in ancestors]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child.pid)
    return found


def shadow_of(job: str, among: Iterable[Process]) -> Process:
    """Return the shadow of a running job; its argument list names the job."""
    for process in among:
        if process.program == "condor_shadow" and job in process.argv:
            return process
    raise PoolError(f"Job {job} has no shadow: it is not running.")


def master_on(host: str, among: Iterable[Process]) -> Process:
    """Return the condor_master of `ap`, `ep1` or `ep2`."""
    for process in among:
        if (process.program, process.host) == ("condor_master", host):
            return process
    raise PoolError(f"{host} has no condor_master that runs.")


def starters_of(job: str, execute: Iterable[Path], among: Iterable[Process]) -> list[Process]:
    """Return the starters of a job, newest start first; an older one may be alive beside it.

    A starter works in `<execute directory>/dir_<its PID>`, and writes the job's ad there before
    anything else (one level further down in HTCondor 25).
    """
    by_inner_pid = {p.inner_pid: p for p in among if p.program == "condor_starter"}
    found: list[tuple[int, Process]] = []
    for directory in execute:
        for ad_file in (*directory.glob("dir_*/.job.ad"), *directory.glob("dir_*/*/.job.ad")):
            number = ad_file.relative_to(directory).parts[0].removeprefix("dir_")
            starter = by_inner_pid.get(int(number)) if number.isdigit() else None
            if starter is None:
                continue
            try:
                values = {name: int(v) for name, v in _AD_LINE.findall(ad_file.read_text())}
            except (FileNotFoundError, UnicodeDecodeError):
                continue
            if f"{values.get('ClusterId')}.{values.get('ProcId')}" == job:
                found.append((values.get("NumShadowStarts", 0), starter))
    return [starter for _, starter in sorted(found, key=lambda pair: -pair[0])]


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, namespace: Path | None) -> Process | None:
    directory = Path(f"/proc/{pid}")
    try:
        if namespace is not None and (directory / "ns/pid").readlink() != namespace:
            return None
        status = (directory / "status").read_text()
        argv = (directory / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    started = start_time(pid)
    if not started:
        return None
    return Process(
        pid=pid,
        inner_pid=int(fields["NSpid"].split()[-1]),
        parent=int(fields["PPid"]),
        argv=tuple(os.fsdecode(part) for part in argv.rstrip(b"\0").split(b"\0") if part),
        started=started,
    )


def run(
    command: Sequence[str], argv: Sequence[str], check: bool, input: str, timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, called `argv` in messages; raises PoolError.

    `check` says that its failure is one, too.
    """
    try:
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        raise PoolError(f"`{' '.join(argv)}` did not end in {timeout_seconds:g} s.") from None
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise PoolError(f"`{' '.join(argv)}` ended with {done.returncode}: {said}")
    return done
