"""Renewals among millions of live leases in PostgreSQL, at the rate of a very large pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.postgres import Cluster

from bench.jobs import Workflows, checked
from bench.load import open_loop
from bench.machine import server

#: 200,000 heartbeats a minute.
RENEWALS_PER_SECOND = 200_000 / 60
_WORKFLOWS = 64
_LOG_BYTES = "SELECT (pg_current_wal_lsn() - '0/0')::bigint"
#: Copies one subjob many times over; `{first}` is its row ID.
_FILL = """
SET synchronous_commit = off;
INSERT INTO workflow (id, name, created_at)
    SELECT {first} + number, 'live-' || number, 0 FROM generate_series(1, {workflows}) AS number;
INSERT INTO subjob (id, workflow_id, name, status, fence, phase, attempt_number, attempt_id, host,
                    seq, updated_at, snapshot)
    SELECT {first} + number, {first} + 1 + number % {workflows},
           's-' || lpad((number / {workflows})::text, 6, '0'), status, fence, phase,
           attempt_number, attempt_id, host, seq, updated_at, snapshot
    FROM subjob, generate_series(0, {subjobs} - 1) AS number WHERE id = {source};
INSERT INTO lease SELECT {first} + number, deadline_at, ttl_seconds
    FROM lease, generate_series(0, {subjobs} - 1) AS number WHERE subjob_id = {source};
VACUUM ANALYZE workflow, subjob, lease;
CHECKPOINT;
"""


def measure_scale(directory: Path, subjobs: int, seconds: float = 60.0) -> dict[str, Any]:
    """200,000 renewals a minute, each of another one of so many live leases."""
    cluster = Cluster(["max_wal_size=8GB", "shared_buffers=1GB"])
    try:
        cluster.make()
        cluster.start()
        name = cluster.new_database()
        directory.mkdir()
        command = (
            *("htlease_server", "--listen", "127.0.0.1:0", "--state-dir", str(directory)),
            *("--store", cluster.url(name), "--log-level", "error"),
        )
        with server(directory, *command) as running:
            one = Workflows(running, "one", 1)
            checked(open_loop(running.port, iter([one.acquire("one-0", 0)]), 10, 0.1))
        source = cluster.sql(name, "SELECT id FROM subjob")
        first = 1_000_001
        fill = _FILL.format(source=source, first=first, subjobs=subjobs, workflows=_WORKFLOWS)
        for statement in fill.split(";"):
            if statement.strip():
                cluster.sql(name, statement)
        size = cluster.sql(name, "SELECT pg_size_pretty(pg_database_size(current_database()))")
        with server(directory, *command) as running:
            live = Workflows(running, "live", _WORKFLOWS + 1)
            count = int(RENEWALS_PER_SECOND * seconds)
            requests = list(_renewals(live, subjobs, count))
            before, server_before = _cpu_seconds(cluster), running.cpu_seconds()
            log_before = int(cluster.sql(name, _LOG_BYTES))
            outcome = open_loop(running.port, iter(requests), RENEWALS_PER_SECOND, seconds)
            database_cores = (_cpu_seconds(cluster) - before) / outcome.seconds
            server_cores = (running.cpu_seconds() - server_before) / outcome.seconds
            log_bytes = int(cluster.sql(name, _LOG_BYTES)) - log_before
            rss_mib = running.rss_mib()
        checked(outcome)
        return {
            "live_leases": subjobs,
            "database_size": size,
            "renewals_per_second": round(outcome.per_second),
            "p50_ms": round(outcome.percentile_ms(50), 1),
            "p99_ms": round(outcome.percentile_ms(99), 1),
            "max_ms": round(outcome.percentile_ms(100), 1),
            "cores_of_server_and_database": (round(server_cores, 2), round(database_cores, 2)),
            "log_bytes_each": round(log_bytes / len(outcome.latencies_seconds)),
            "cpu_us_each_of_server_and_database": (
                round(server_cores / outcome.per_second * 1e6),
                round(database_cores / outcome.per_second * 1e6),
            ),
            "server_rss_mib": round(rss_mib),
        }
    finally:
        cluster.remove()


def _renewals(live: Workflows, subjobs: int, count: int) -> Iterator[bytes]:
    """Yield renewals all over the table, no lease twice."""
    stride = max(1, subjobs // count)
    for number in range(count):
        place = number * stride % subjobs
        yield live.renew(f"live-{1 + place % _WORKFLOWS}", place // _WORKFLOWS)


def _cpu_seconds(cluster: Cluster) -> float:
    """Return the processor time of the database's processes that live now, and have lived."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parts = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(parts[1]) == cluster.pid or path.parent.name == str(cluster.pid):
            ticks += int(parts[11]) + int(parts[12])
    return ticks / os.sysconf("SC_CLK_TCK")
