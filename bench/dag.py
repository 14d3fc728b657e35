"""What the scripts cost a DAG: none, `/bin/true` and htlease's as PRE and POST on one pool."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from bench.machine import Running, server
from htlease_dagman.scripts.invocation import DEFER, MACROS, SKIP, words_for
from htlease_lab.pool import Pool

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT_RUNS = 21
#: A machine that needs longer than this has other work, and its figures are worth nothing.
START_SECONDS, NODE_SECONDS = 300.0, 2.0
LOOK_SECONDS, SAY_SECONDS = 0.5, 20.0
_NOOP = """\
universe = {universe}
executable = /bin/true
transfer_executable = False
request_cpus = 1
request_memory = 1
request_disk = 1
log = job.log
queue
"""


@dataclass(frozen=True)
class Run:
    """What one DAG took."""

    #: From DAGMan's start to its end, by its event log.
    seconds: float
    dagman_cpu_seconds: float
    scripts_cpu_seconds: float

    def document(self, nodes: int) -> dict[str, float]:
        """Return the figures for the results."""
        return {
            "seconds": round(self.seconds, 1),
            "dagman_cpu_ms_per_node": round(self.dagman_cpu_seconds / nodes * 1e3, 1),
            "scripts_cpu_ms_per_node": round(self.scripts_cpu_seconds / nodes * 1e3, 1),
        }


@dataclass
class Site:
    """A pool, a server that it can reach, and the scripts where the access point runs them."""

    pool: Pool
    running: Running
    command: Path

    @property
    def url(self) -> str:
        return f"http://{self.pool.ap_address}:{self.running.port}"

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        owner = self.pool.work_dir.stat()
        shutil.chown(path, owner.st_uid, owner.st_gid)

    def settings(self, directory: Path, workflow: str) -> Path:
        """Write a DAG's settings and its token; return the former."""
        request = urllib.request.Request(
            f"{self.url}/v1/tokens",
            json.dumps({"workflow": workflow, "ttl_seconds": 86400}).encode(),
            {"Authorization": f"Bearer {self.running.admin_token}"},
        )
        with urllib.request.urlopen(request) as answer:
            self.write(directory / "workflow.token", json.load(answer)["token"])
        told = {
            "version": 1,
            "workflow": workflow,
            "server": self.url.replace("http:", "http+insecure:"),
        }
        settings = directory / "d.htlease.json"
        self.write(settings, json.dumps({**told, "token_file": "workflow.token"}))
        return settings

    def run(self, name: str, nodes: int, universe: str, scripts: list[str]) -> Run:
        """Run a flat DAG to its end; raises SystemExit when it fails or takes far too long."""
        directory = self.pool.job_directory(name)
        lines = [f"JOB N{number} noop.sub" for number in range(nodes)]
        self.write(directory / "noop.sub", _NOOP.format(universe=universe))
        self.write(directory / "d.dag", "\n".join([*lines, *scripts, ""]))
        self.pool.run(["condor_submit_dag", "d.dag"], cwd=directory)
        log = directory / "d.dag.dagman.log"
        began = self.pool.wait_event(log, 1, timeout_seconds=START_SECONDS)
        spent = self._watch(name, directory, nodes)
        ended = self.pool.wait_event(log, 5)
        if "return value 0" not in ended.text:
            raise SystemExit(f"the DAG {name} failed, see {directory}/d.dag.dagman.out")
        return Run((ended.time - began.time).total_seconds(), *spent)

    def _watch(self, name: str, directory: Path, nodes: int) -> tuple[float, float]:
        """Wait for the end of DAGMan and return its own processor time and that of its scripts."""
        pid = self.pool.wait_for(lambda: self._dagman(directory), "DAGMan", START_SECONDS)
        assert pid is not None
        give_up_at = time.monotonic() + START_SECONDS + nodes * NODE_SECONDS
        say_at, spent = 0.0, (0.0, 0.0)
        while (now := _cpu_seconds(pid)) is not None:
            spent = now
            if time.monotonic() > say_at:
                done = (directory / "job.log").read_text().count("\n005 (") if say_at else 0
                print(f"{name}: {done} of {nodes} jobs have ended", file=sys.stderr, flush=True)
                say_at = time.monotonic() + SAY_SECONDS
            if time.monotonic() > give_up_at:
                raise SystemExit(f"the DAG {name} takes far too long, see {directory}")
            time.sleep(LOOK_SECONDS)
        return spent

    def _dagman(self, directory: Path) -> int | None:
        for process in self.pool.processes():
            if "-Lockfile" in process.argv:
                cwd = Path(f"/proc/{process.pid}/cwd")
                if cwd.exists() and cwd.readlink() == directory:
                    return process.pid
        return None

    def our_scripts(self, name: str) -> list[str]:
        """Return the lines that `htlease dag instrument` would write for a DAG of this name."""
        settings = self.settings(self.pool.job_directory(f"{name}-settings"), name)
        lines = [f"PRE_SKIP ALL_NODES {SKIP}"]
        for kind in ("pre", "post"):
            words = " ".join([str(self.command), *words_for(kind, str(settings))])
            lines.append(f"SCRIPT DEFER {DEFER} 10 {kind.upper()} ALL_NODES {words}")
        return lines


def _cpu_seconds(pid: int) -> tuple[float, float] | None:
    """Return what a process and its ended children have used; None when it has ended."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    own, children = int(parts[11]) + int(parts[12]), int(parts[13]) + int(parts[14])
    ticks = os.sysconf("SC_CLK_TCK")
    return None if parts[0] == "Z" else (own / ticks, children / ticks)


def measure_dag(directory: Path, nodes: int, universe: str) -> dict[str, Any]:
    """Run a DAG of no-op jobs without scripts, with `/bin/true` and with htlease's."""
    pool = Pool("benchdag", shared=[PROJECT])
    pool.down()
    pool.up()
    state = directory / "dag"
    state.mkdir()
    listen = ("--listen", f"{pool.ap_address}:0", "--state-dir", str(state))
    try:
        pool.configure("ap", "dagman", "DAGMAN_USER_LOG_SCAN_INTERVAL = 1\n")
        with server(state, "htlease_server", *listen) as running:
            site = Site(pool, running, _install(pool))
            true = [f"SCRIPT {kind} ALL_NODES /bin/true" for kind in ("PRE", "POST")]
            bare = site.run("bare", nodes, universe, [])
            with_true = site.run("true", nodes, universe, true)
            before = running.cpu_seconds()
            ours = site.run("ours", nodes, universe, site.our_scripts("ours"))
            server_seconds = running.cpu_seconds() - before
            return {
                "condor": pool.run(["condor_version"]).stdout.split()[1],
                "nodes": nodes,
                "universe": universe,
                "without_scripts": bare.document(nodes),
                "with_true": with_true.document(nodes),
                "with_htlease": ours.document(nodes),
                "ratio": round(ours.seconds / with_true.seconds, 2),
                "server_cpu_ms_per_node": round(server_seconds / nodes * 1e3, 1),
                **_script_ms(site),
            }
    finally:
        pool.down(purge=True)


def _install(pool: Pool) -> Path:
    """Put the scripts where the access point's Python runs them, compiled as pip would."""
    site = pool.directory / "site"
    library, command = site / "lib", site / "htlease-dag"
    site.mkdir(mode=0o755)
    for package in (PROJECT / "core/htlease", PROJECT / "dagman/htlease_dagman"):
        shutil.copytree(package, library / package.name)
    shutil.copytree(Path(tenacity.__file__).parent, library / "tenacity")
    pool.run(["python3", "-m", "compileall", "-q", str(library)], as_root=True)
    command.write_text(
        "#!/usr/bin/python3 -IS\n"
        f"import sys\nsys.path.insert(0, {str(library)!r})\n"
        "from htlease_dagman.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    return command


def _script_ms(site: Site) -> dict[str, float]:
    """Time PRE and POST of single nodes from start to end, one after the other."""
    directory = site.pool.job_directory("single")
    settings = site.settings(directory, "single")
    spent: dict[str, list[float]] = {"pre_ms": [], "post_ms": []}
    library = site.command.parent / "lib"
    start = f"import sys; sys.path.insert(0, {str(library)!r})"
    start += "; from htlease_dagman.cli import main; sys.exit(main())"
    for number in range(SCRIPT_RUNS + 1):
        given = {"JOB": f"N{number}", "RETRY": 0, "MAX_RETRIES": 0, "DAGID": 1}
        given |= {"JOBID": "2.0", "RETURN": 0}
        for kind in ("pre", "post"):
            words = [str(w) for name in MACROS[kind] for w in (name, given[name])]
            command = ["/usr/bin/python3", "-IS", "-c", start, kind, str(settings), *words]
            started_at = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            spent[f"{kind}_ms"].append((time.perf_counter() - started_at) * 1e3)
    return {name: round(statistics.median(times[1:]), 1) for name, times in spent.items()}
