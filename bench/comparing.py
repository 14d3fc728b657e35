"""Our writes against the peers', in turns: the machine drifts, so neighbours are compared."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.jobs import CONNECTIONS, Workflows, checked, full_load, htlease, prepared
from bench.load import closed_loop
from bench.machine import Running, server
from bench.peers import Etcd, Pgbench

ROUNDS = 5
#: As many jobs report at once in a pool of some size; each server's turns are larger then.
MANY_CONNECTIONS = 256


def measure_compared(directory: Path, is_postgres_only: bool) -> dict[str, Any]:
    """Rounds of ours and of the peers', interleaved; per second, and the median of the ratios."""
    with contextlib.ExitStack() as stack:
        ours = _place(directory, "ours")
        sides: list[tuple[str, Callable[[int], float]]] = []
        versions: dict[str, str] = {}

        def loaded(
            name: str, *running: Running, connections: int = CONNECTIONS
        ) -> tuple[str, Callable[[int], float]]:
            warm = Workflows(running[0], f"warm-{name}")
            ports = [each.port for each in running]
            checked(closed_loop(ports, prepared(warm.all_lives(range(5)))))
            first, *others = running

            def measure(number: int) -> float:
                return full_load(first, f"{name}-{number}", others, connections)[0].per_second

            return name, measure

        if not is_postgres_only:
            sqlite = stack.enter_context(htlease(ours))
            sides.append(loaded("htlease-sqlite", sqlite))
            etcd = stack.enter_context(Etcd.running(directory))
            if etcd is not None:
                versions[etcd.name] = etcd.version()
                sides += [(etcd.name, lambda n: etcd.round()), sides[0]]
        pgbench = stack.enter_context(Pgbench.running())
        if pgbench is not None:
            versions["postgresql"] = pgbench.version()
            sides.append((pgbench.name, lambda n: pgbench.round()))
            url = pgbench.cluster.url(pgbench.cluster.new_database())
            place = _place(directory, "shared")
            command = (
                *("htlease_server", "--listen", "127.0.0.1:0", "--state-dir", str(place)),
                *("--store", url, "--log-level", "warning"),
            )
            one = stack.enter_context(server(place, *command))
            two = stack.enter_context(server(place, *command))
            sides.append(loaded("htlease-postgresql-1", one))
            many = f"htlease-postgresql-1-of-{MANY_CONNECTIONS}-connections"
            sides.append(loaded(many, one, connections=MANY_CONNECTIONS))
            sides.append(loaded("htlease-postgresql-2", one, two))
        rates: dict[str, list[float]] = {}
        for number in range(ROUNDS):
            for turn, (name, measure) in enumerate(sides):
                rates.setdefault(name, []).append(round(measure(number * len(sides) + turn)))
        found: dict[str, Any] = {
            "versions": versions,
            "per_second": {name: statistics.median_low(rate) for name, rate in rates.items()},
            "per_second_of_each_round": rates,
            "ratios": _ratios(rates),
        }
        if not is_postgres_only and etcd is not None:
            found["etcdctl_check_perf"] = etcd.whole_check()
        return found


def _ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return ours to each peer's by medians, for whatever of ours and theirs was measured."""
    ratios = {}
    for ours in rates:
        for peer in ("etcd", "pgbench"):
            if ours.startswith("htlease") and peer in rates:
                ratio = statistics.median(rates[ours]) / statistics.median(rates[peer])
                ratios[f"{ours} / {peer}"] = round(ratio, 2)
    return ratios


def _place(directory: Path, name: str) -> Path:
    place = directory / name
    place.mkdir()
    return place
