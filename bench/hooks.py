"""What a starter hook costs: built pyz, recorded ad, real server; a bare Python beside it."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ADS = Path(__file__).resolve().parents[1] / "tests" / "data" / "ads" / "25.14.1"
RUNS = 21
_LINKS = ("prepare_job_before_transfer", "update_job_info", "job_exit")


def measure_hooks(directory: Path, pyz: Path, server_url: str, token: str) -> dict[str, Any]:
    """Return medians in milliseconds: with the pyz as built, and with bytecode for this Python."""
    compiled = directory / "compiled.pyz"
    subprocess.run([_python(), pyz, "compile", compiled], check=True)
    job = subprocess.Popen(["sleep", "600"])
    try:
        return {
            "bare_python_ms": _median([_bare() for _ in range(RUNS)]),
            "as_built": _hooks(directory / "as-built", pyz, server_url, token, job.pid),
            "compiled": _hooks(directory / "compiled", compiled, server_url, token, job.pid),
        }
    finally:
        job.kill()
        job.wait()


def _hooks(
    directory: Path, pyz: Path, server_url: str, token: str, job_pid: int
) -> dict[str, float]:
    directory.mkdir()
    for link in _LINKS:
        (directory / link).symlink_to(pyz)
    spent: dict[str, list[float]] = {link: [] for link in _LINKS}
    for number in range(RUNS):
        scratch = directory / str(number)
        scratch.mkdir()
        named = f'HTLeaseKey = "{directory.name}/{number}"\n'
        for ad in ("job", "machine"):
            text = (ADS / ("first-start.ad" if ad == "job" else "machine.ad")).read_text()
            (scratch / f".{ad}.ad").write_text(text + (named if ad == "job" else ""))
        (scratch / "htlease.token").write_text(token)
        first = (ADS / "first-start.ad").read_text() + named
        running = (ADS / "running.ad").read_text() + named + f"JobPid = {job_pid}\n"
        calls: tuple[tuple[list[str], str], ...] = (
            ([f"--server={server_url}"], first),
            ([], running),
            (["exit"], (ADS / "exited.ad").read_text() + named),
        )
        for link, (arguments, ad_text) in zip(_LINKS, calls, strict=True):
            command = [str(directory / link), *arguments]
            spent[link].append(_timed(command, ad_text, scratch))
        shutil.rmtree(scratch)
    return {f"{link}_ms": _median(times[1:]) for link, times in spent.items()}


def _python() -> str:
    """Return the Python that a starter's search path has; that of this program if there is none."""
    return shutil.which("python3", path=os.defpath) or os.path.realpath(sys.executable)


def _bare() -> float:
    return _timed(["/usr/bin/env", "python3", "-c", "pass"], "", Path.cwd())


def _timed(command: list[str], stdin: str, scratch: Path) -> float:
    environ = {
        "PATH": f"{Path(_python()).parent}:{os.defpath}",
        "_CONDOR_SCRATCH_DIR": str(scratch),
        "_CONDOR_JOB_AD": str(scratch / ".job.ad"),
        "_CONDOR_MACHINE_AD": str(scratch / ".machine.ad"),
    }
    began_at = time.perf_counter()
    done = subprocess.run(
        command, input=stdin, text=True, cwd=scratch, env=environ, capture_output=True
    )
    seconds = time.perf_counter() - began_at
    assert done.returncode == 0, done.stderr
    return seconds


def _median(times: list[float]) -> float:
    return round(statistics.median(times) * 1e3, 1)
