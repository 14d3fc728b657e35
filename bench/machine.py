"""Processes under test, and what this machine's disk can do."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from htlease.wire.transport import plain_url


@dataclass
class Running:
    """A server process."""

    pid: int
    port: int
    admin_token: str

    def rss_mib(self) -> float:
        """Return the memory that the process and the one that writes for it have resident."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._processes()
        )
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        """Return the processor time that the process and the one that writes for it have used."""
        ticks = 0
        for pid in self._processes():
            parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(parts[11]) + int(parts[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _processes(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def disk_kib(self) -> tuple[float, float]:
        """Return what was read from the disk, and what whoever writes has given to files."""
        counts: list[dict[str, int]] = []
        for pid in self._processes():
            lines = (line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
            counts.append({name: int(value) for name, value in lines})
        return sum(each["read_bytes"] for each in counts) / 1024, counts[-1]["wchar"] / 1024


@contextlib.contextmanager
def server(directory: Path, *command: str) -> Iterator[Running]:
    """Run `python -m COMMAND`; its first line ends with its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} did not start")
            url = plain_url(line.split()[-1])
            token = directory / "admin.token"
            with urllib.request.urlopen(f"{url}/healthz") if "echo" not in line else _nothing():
                pass
            admin_token = token.read_text().strip() if token.exists() else ""
            yield Running(process.pid, int(url.rpartition(":")[2]), admin_token)
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


def processor() -> str:
    """Return the processor's name."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown"


def memory_mib() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def fdatasyncs_per_second(directory: Path, seconds: float = 2.0, size_bytes: int = 4096) -> float:
    """Return how often a second this disk takes an appended block and says that it has it."""
    with tempfile.TemporaryFile(dir=directory) as file:
        block, count, started_at = b"x" * size_bytes, 0, time.monotonic()
        while time.monotonic() - started_at < seconds:
            os.pwrite(file.fileno(), block, count * size_bytes)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.monotonic() - started_at)
