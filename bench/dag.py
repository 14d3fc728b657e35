"""What the scripts cost a DAG: PRE and POST against `/bin/true` on one personal pool."""

from __future__ import annotations

import json
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
from htlease_dagman.call import DEFER, MACROS, SKIP, words_for
from htlease_minipool import Pool

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT_RUNS = 21
END_SECONDS = 3 * 3600.0
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

    def dag_seconds(self, name: str, nodes: int, universe: str, scripts: list[str]) -> float:
        """Run a flat DAG and return how long DAGMan took, with its own start and end."""
        directory = self.pool.job_directory(name)
        lines = [f"JOB N{number} noop.sub" for number in range(nodes)]
        if not scripts:
            settings = self.settings(directory, name)
            kinds = {"pre": f"DEFER {DEFER} 10 PRE", "post": f"DEFER {DEFER} 10 POST"}
            for kind, line in kinds.items():
                words = " ".join([str(self.command), *words_for(kind, str(settings))])
                scripts.append(f"SCRIPT {line} ALL_NODES {words}")
            scripts.append(f"PRE_SKIP ALL_NODES {SKIP}")
        self.write(directory / "noop.sub", _NOOP.format(universe=universe))
        self.write(directory / "d.dag", "\n".join([*lines, *scripts, ""]))
        self.pool.run(["condor_submit_dag", "d.dag"], cwd=directory)
        log = directory / "d.dag.dagman.log"
        ended = self.pool.wait_event(log, 5, timeout_seconds=END_SECONDS)
        if "return value 0" not in ended.text:
            raise SystemExit(f"the DAG {name} failed, see {directory}/d.dag.dagman.out")
        return (ended.time - self.pool.wait_event(log, 0).time).total_seconds()


def measure_dag(directory: Path, nodes: int, universe: str) -> dict[str, Any]:
    """Run a DAG of no-op jobs with `/bin/true` and then with htlease for its scripts."""
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
            bare_seconds = site.dag_seconds("bare", nodes, universe, true)
            before = running.cpu_seconds()
            leased_seconds = site.dag_seconds("leased", nodes, universe, [])
            server_seconds = running.cpu_seconds() - before
            return {
                "nodes": nodes,
                "universe": universe,
                "with_true_seconds": round(bare_seconds, 1),
                "with_htlease_seconds": round(leased_seconds, 1),
                "ratio": round(leased_seconds / bare_seconds, 2),
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
            command = [sys.executable, "-IS", "-c", start, kind, str(settings), *words]
            started_at = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            spent[f"{kind}_ms"].append((time.perf_counter() - started_at) * 1e3)
    return {name: round(statistics.median(times[1:]), 1) for name, times in spent.items()}
