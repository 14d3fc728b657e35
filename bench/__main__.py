"""Measure server and wrapper on this machine; prints all and writes `bench/results.json`.

Numbers of one run belong together: the disk's fdatasync rate and an empty ASGI application under
the same load generator say how good the machine was at that moment.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.bigstore import measure_bigstore
from bench.comparing import measure_compared
from bench.dag import measure_dag
from bench.hooks import measure_hooks
from bench.jobs import CONNECTIONS, Workflows, checked, full_load, htlease, prepared
from bench.load import Outcome, closed_loop, open_loop, post
from bench.machine import fdatasyncs_per_second, memory_mib, processor, server
from bench.million import measure_million
from bench.scale import measure_scale

MEASURED = ("echo", "writes", "leases", "peers", "million", "wrapper", "hooks")
#: Asked for by name: a part of `peers`, what fills a disk, and what needs HTCondor and is long.
BY_NAME = ("postgres", "scale", "bigstore", "dag")
LEASES = 1_000_000
ROUNDS = 5
WRAPPER_RUNS = 15
PROJECT = Path(__file__).resolve().parents[1]


def _interleaved(iterators: Sequence[Iterator[bytes]]) -> Iterator[bytes]:
    return iter([item for group in zip(*iterators, strict=True) for item in group])


def _spread(subjobs: range) -> Iterator[int]:
    """Go through all subjobs again and again, in strides that leave none out for long."""
    return (subjobs[number * 37 % len(subjobs)] for number in itertools.count())


def _ms(outcome: Outcome) -> dict[str, float]:
    checked(outcome)
    return {
        "p50_ms": round(outcome.percentile_ms(50), 2),
        "p99_ms": round(outcome.percentile_ms(99), 2),
        "max_ms": round(outcome.percentile_ms(100), 2),
    }


def measure_echo(directory: Path) -> dict[str, Any]:
    """An empty ASGI application under the same requests."""
    with server(directory, "bench.echo") as running:
        request = post("/v1/workflows/w/subjobs/s/phases/p/enter", "x" * 300, b"x" * 90)
        outcome = closed_loop(running.port, [itertools.repeat(request)] * CONNECTIONS, seconds=4)
        return {
            "per_second": round(checked(outcome).per_second),
            "server_cpu_us_each": round(
                running.cpu_seconds() / len(outcome.latencies_seconds) * 1e6
            ),
        }


def measure_writes(directory: Path) -> dict[str, Any]:
    """Whole jobs, every write durable before its answer; then the same at 1,000 a second."""
    with htlease(directory) as running:
        workflows = Workflows(running, "warm")
        closed_loop(running.port, prepared(workflows.all_lives(range(10))))
        rounds = [full_load(running, f"full{number}") for number in range(ROUNDS)]
        workflows = Workflows(running, "calm")
        calm = open_loop(
            running.port, _interleaved(workflows.all_lives(range(20))), per_second=1000, seconds=10
        )
        rates = sorted(round(checked(outcome).per_second) for outcome, _ in rounds)
        return {
            "per_second": statistics.median_low(rates),
            "per_second_of_each_round": rates,
            "server_cpu_us_each": statistics.median_low(cost for _, cost in rounds),
            **_ms(rounds[-1][0]),
            "at_1000_per_second": _ms(calm),
        }


def measure_leases(directory: Path, leases: int) -> dict[str, Any]:
    """Renewals and durable writes spread over a number of live leases, and the memory."""
    with htlease(directory) as running:
        names = min(CONNECTIONS, leases)
        each = range(leases // names)
        workflows = Workflows(running, "live", names)
        checked(closed_loop(running.port, prepared(workflows.each(workflows.acquire, each))))
        rounds = max(1, 60_000 // (names * len(each)))
        renewals = workflows.each(workflows.renew, [*each] * rounds)
        renewed = closed_loop(running.port, prepared(renewals))
        calm = prepared(workflows.each(workflows.renew, itertools.islice(_spread(each), 125)))
        spread = open_loop(running.port, _interleaved(calm), per_second=1000, seconds=names / 8)
        return {
            "leases": names * len(each),
            "renewals_per_second": round(checked(renewed).per_second),
            "renewals_at_1000_per_second": _ms(spread),
            "server_rss_mib": round(running.rss_mib()),
        }


def _built(directory: Path) -> Path:
    pyz = directory / "htlease-ep.pyz"
    build = [sys.executable, str(PROJECT / "wrappers" / "build_pyz.py"), "--output", str(pyz)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return pyz


def _hooks(directory: Path) -> dict[str, Any]:
    place = directory / "hooks"
    place.mkdir()
    pyz, state = _built(place), place / "state"
    state.mkdir()
    with htlease(state) as running:
        return measure_hooks(place, pyz, f"http://127.0.0.1:{running.port}", running.admin_token)


def measure_wrapper(directory: Path) -> dict[str, Any]:
    """`true` under the built pyz against `true` under a bare interpreter, taken in turn."""
    pyz = _built(directory)
    python = os.path.realpath(sys.executable)
    bare = [python, "-c", "import os; os.spawnlp(os.P_WAIT, 'true', 'true')"]
    state = directory / "state"
    state.mkdir()
    commands = {"bare_ms": bare, "start_and_imports_ms": [python, str(pyz), "run", "--help"]}
    spent: dict[str, list[float]] = {name: [] for name in (*commands, "wrapped_ms")}
    with htlease(state) as running:
        environment = {
            "PATH": os.environ["PATH"],
            "HTLEASE_URL": f"http://127.0.0.1:{running.port}",
            "BEARER_TOKEN": running.admin_token,
        }
        for number in range(WRAPPER_RUNS + 1):
            wrapped = [python, str(pyz), "run", "--key", f"bench/{number}", "--", "true"]
            for name, command in [*commands.items(), ("wrapped_ms", wrapped)]:
                started_at = time.perf_counter()
                subprocess.run(command, check=True, cwd=state, env=environment, capture_output=True)
                spent[name].append((time.perf_counter() - started_at) * 1e3)
    medians = {name: round(statistics.median(times[1:]), 1) for name, times in spent.items()}
    return {**medians, "extra_ms": round(medians["wrapped_ms"] - medians["bare_ms"], 1)}


def main() -> int:
    """Run what was asked for and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=(*MEASURED, *BY_NAME), action="append")
    parser.add_argument("--directory", type=Path, help="where the stores lie; default: a new one")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument(
        "--leases", type=int, default=LEASES, help="live ones, for million and scale"
    )
    parser.add_argument("--subjobs", type=int, default=100_000, help="for bigstore")
    parser.add_argument("--dag-nodes", type=int, default=2000)
    parser.add_argument("--dag-universe", choices=("vanilla", "local"), default="vanilla")
    given = parser.parse_args()
    wanted = given.only or MEASURED
    results: dict[str, Any] = {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "connections": CONNECTIONS,
    }
    results["processor"], results["memory_mib"] = processor(), memory_mib()
    with tempfile.TemporaryDirectory(dir=given.directory or Path(__file__).parent) as name:
        directory = Path(name)
        for part in ("peers", "postgres", "million"):
            (directory / part).mkdir()
        results["fdatasync_per_second"] = round(fdatasyncs_per_second(directory))
        if "echo" in wanted:
            results["echo"] = measure_echo(directory)
        if "writes" in wanted:
            results["durable_writes"] = measure_writes(directory)
        if "leases" in wanted:
            results["live_leases"] = [measure_leases(directory, n) for n in (100, 100_000)]
        for name in ("peers", "postgres"):
            if name in wanted:
                results[name] = measure_compared(directory / name, name == "postgres")
        if "million" in wanted:
            results["million"] = measure_million(directory / "million", given.leases)
        if "scale" in wanted:
            results["scale"] = measure_scale(directory / "scale", given.leases)
        if "wrapper" in wanted:
            results["wrapper"] = measure_wrapper(directory)
        if "hooks" in wanted:
            results["hooks"] = _hooks(directory)
        if "bigstore" in wanted:
            place = directory / "bigstore"
            place.mkdir()
            results["bigstore"] = measure_bigstore(place, given.subjobs)
        if "dag" in wanted:  # needs HTCondor and is long, so it is asked for by name
            results["dag"] = measure_dag(directory, given.dag_nodes, given.dag_universe)
    text = json.dumps(results, indent=2)
    print(text)
    given.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
