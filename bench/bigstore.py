"""A store of millions of subjobs: what a write costs in it, against an empty one; and its lists.

The rows are those that a real subjob leaves, with other numbers in them, written past the server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from bench.jobs import NONCE, Workflows, checked, full_load
from bench.load import Outcome, open_loop, post
from bench.machine import Running, server
from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.attempt import Evidence, Place
from htlease.rules.state import SubjobState, apply
from htlease_server.engine.history import EVENT_NAMES, data_of, fingerprints_with, ids_in
from htlease_server.engine.states.cache import Entry
from htlease_server.store.base import HistoryRow, SubjobRow
from htlease_server.store.sqlite.sqlite_store import SqliteStore

IN_WORKFLOW = 10_000
#: One workflow has this part of all subjobs.
IN_LARGEST = 0.1
#: In every other workflow one subjob of so many is held; all others are closed.
ONE_HELD_OF = 50
AT = 1_790_000_000.0
_NUMBER = 98_765_432  # eight digits, to be found and replaced
ROUNDS = 5
#: Subjobs of the store that restarts in the big one are compared with.
SMALL = 200_000
CALM_PER_SECOND = 300.0
STORE = "htlease.sqlite3"
PLACE = Place(machine="ep1", slot="slot1_1@ep1", startd="<10.0.0.1:9618>#17952")
_QUIET = ("--log-level", "warning")
_Item = TypeVar("_Item")


class Template:
    """What one subjob leaves in the store."""

    def __init__(self, is_held: bool) -> None:
        job = f"ap1.example.org#{_NUMBER}.0#1795225431"
        evidence = Evidence(job_starts=1, shadow_starts=1, shadow_birthdate=1795225431)
        commands: list[m.Command] = [
            m.Acquire(NONCE, "job", evidence, PLACE, job, "ep1.example.org", 3600.0)
        ]
        if not is_held:
            commands.append(m.Cancel("generated"))
        state, self.history, self.ids, seq = SubjobState(), [], [f"s-{_NUMBER}"], 0
        fingerprints = b""
        for number, command in enumerate(commands):
            decision = decide(state, command, AT)
            assert isinstance(decision, m.Accepted), decision
            state = apply(state, decision.events, AT)
            digest: bytes | None = b"d" * 16
            # The same for all subjobs, so that its mark is.
            request_id = f"request-template-{number}"
            fingerprints = fingerprints_with(fingerprints, request_id)
            for event in decision.events:
                seq += 1
                self.history.append(
                    (
                        *(seq, AT, EVENT_NAMES[type(event)], getattr(event, "fence", None)),
                        *("token:0123456789abcdef", request_id, digest),
                        *(None, None, data_of(event)),
                    )
                )
                digest = None
                self.ids += ids_in(event)
        entry = Entry(0, 0, state, seq, 0)
        entry.fingerprints = fingerprints
        self.row = entry.row(f"s-{_NUMBER}", AT)


def _numbered(value: Any, number: int) -> Any:
    if isinstance(value, str):
        return value.replace(str(_NUMBER), f"{number:08d}")
    if isinstance(value, bytes):
        return value.replace(str(_NUMBER).encode(), f"{number:08d}".encode())
    return value


def _workflow_of(number: int, subjobs: int) -> int:
    """Return the workflow of the subjob with a row ID; the first one is the largest."""
    largest = int(subjobs * IN_LARGEST)
    return 1 if number <= largest else 2 + (number - largest - 1) // IN_WORKFLOW


def generate(path: Path, subjobs: int) -> None:
    """Make a store with so many subjobs, three events each; the last ones are held."""
    SqliteStore(path).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -500000")
    closed, held = Template(is_held=False), Template(is_held=True)

    def template(number: int) -> Template:
        is_held = number % ONE_HELD_OF == 0 and _workflow_of(number, subjobs) % 2
        return held if is_held else closed

    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(1, subjobs + 1):
            row = [_numbered(value, number) for value in template(number).row[:-2]]
            yield (number, _workflow_of(number, subjobs), *row[2:])

    def history() -> Iterator[tuple[Any, ...]]:
        for number in range(1, subjobs + 1):
            for event in template(number).history:
                yield (number, *(_numbered(value, number) for value in event))

    def ids(which: int) -> Iterator[tuple[str, int]]:
        for number in range(1, subjobs + 1):
            yield _numbered(template(number).ids[which], number), number

    workflows = _workflow_of(subjobs, subjobs)
    for table, names, values in (
        ("workflow", "id, name, created_at", ((n, f"w-{n:06d}", AT) for n in _to(workflows))),
        ("subjob", ", ".join(SubjobRow._fields[:-2]), rows()),
        ("lease", "subjob_id, deadline_at, ttl_seconds", ((n, AT, 3600.0) for n in _to(subjobs))),
        ("history", ", ".join(HistoryRow._fields), history()),
        *(("known_id", "id_text, subjob_id", ids(which)) for which in range(len(closed.ids))),
    ):
        fingerprints = ", ".join("?" * len(names.split(",")))
        insert = f"INSERT INTO {table} ({names}) VALUES ({fingerprints})"
        for part in _in_parts(values, 50_000):
            db.execute("BEGIN")
            db.executemany(insert, part)
            db.execute("COMMIT")
    db.execute(
        "INSERT INTO subjob_count SELECT workflow_id, status, count(*), max(updated_at)"
        " FROM subjob GROUP BY workflow_id, status"
    )
    db.close()


def _to(count: int) -> range:
    return range(1, count + 1)


def _in_parts(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    items = iter(items)
    while part := list(islice(items, size)):
        yield part


def look_ups(url: str, token: str, subjobs: int) -> dict[str, float]:
    """Return the median milliseconds of each kind of look-up, over fresh places in the store."""
    workflows = _workflow_of(subjobs, subjobs)
    middle = subjobs // 2

    def subjob(number: int) -> str:
        return f"/v1/workflows/w-{_workflow_of(number, subjobs):06d}/subjobs/s-{number:08d}"

    asked = {
        "workflows": [f"/v1/workflows?cursor=w-{n * 7 % workflows:06d}" for n in range(9)],
        "largest_workflow": [f"/v1/workflows/w-000001?cursor=s-{n * 9973:08d}" for n in range(9)],
        "subjob": [subjob(middle + n * 131) for n in range(9)],
        "history": [subjob(middle + n * 137) + "/history" for n in range(9)],
        "by_id": [
            f"/v1/subjobs?id=ap1.example.org%23{middle + n * 139:08d}.0%231795225431"
            for n in range(9)
        ],
        "metrics": ["/metrics"] * 9,
    }
    return {name: _median_ms(url, token, paths) for name, paths in asked.items()}


def _median_ms(url: str, token: str, paths: Sequence[str]) -> float:
    spent = []
    for path in paths:
        request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
        started_at = time.perf_counter()
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        spent.append((time.perf_counter() - started_at) * 1e3)
        assert path == "/metrics" or json.loads(body), path
    return round(statistics.median(spent), 2)


def measure_bigstore(directory: Path, subjobs: int) -> dict[str, Any]:
    """Writes and look-ups in a store of so many subjobs, writes in turns with an empty one."""
    empty, small, big = directory / "empty", directory / "small", directory / "big"
    for place in (empty, small, big):
        place.mkdir()
    generate(small / STORE, SMALL)
    started_at = time.perf_counter()
    generate(big / STORE, subjobs)
    seconds = round(time.perf_counter() - started_at)
    size_mib = round((big / STORE).stat().st_size / 2**20)
    return {
        "subjobs": subjobs,
        "generated_in_seconds": seconds,
        "size_mib": size_mib,
        **compare(empty, big, subjobs),
        "restarts": compare_restarts({small: SMALL, big: subjobs}),
    }


def compare(empty: Path, big: Path, subjobs: int) -> dict[str, Any]:
    """Measure over two state directories, the second of which has a generated store."""
    spent: dict[str, list[dict[str, float]]] = {"empty": [], "big": []}
    stamp = f"{time.time():.0f}"  # the stores may have been measured before
    with _serving(empty) as small, _serving(big) as large:
        for number in range(ROUNDS + 1):
            for name, running in (("empty", small), ("big", large)):
                outcome, cpu_us = full_load(running, f"{name}{stamp}-{number}")
                calm = _calm(running, f"calm{stamp}-{number}")
                spent[name].append(
                    {
                        "per_second": round(checked(outcome).per_second),
                        "server_cpu_us_each": cpu_us,
                        "p50_ms": round(calm.percentile_ms(50), 2),
                        "p99_ms": round(calm.percentile_ms(99), 2),
                    }
                )
        results: dict[str, Any] = {
            name: {what: statistics.median(row[what] for row in rows[1:]) for what in rows[0]}
            for name, rows in spent.items()
        }
        for what in ("server_cpu_us_each", "p50_ms"):
            ratio = results["big"][what] / results["empty"][what]
            results[f"{what}_ratio"] = round(ratio, 2)
        url = f"http://127.0.0.1:{large.port}"
        results["look_ups_ms"] = look_ups(url, large.admin_token, subjobs)
        results["while_trimming"] = _while_trimming(large)
    return results


def _serving(place: Path) -> Any:
    return server(
        place, "htlease_server", "--listen", "127.0.0.1:0", "--state-dir", str(place), *_QUIET
    )


def _calm(running: Running, prefix: str, seconds: float = 5) -> Outcome:
    """Return durable writes at a rate that leaves the machine idle most of the time."""
    workflows = Workflows(running, prefix)
    lives = workflows.all_lives(range(int(CALM_PER_SECOND * seconds / 500) + 1))
    requests = iter([request for group in zip(*lives, strict=True) for request in group])
    return checked(open_loop(running.port, requests, CALM_PER_SECOND, seconds))


def compare_restarts(stores: dict[Path, int]) -> dict[str, dict[str, float]]:
    """Measure starts of subjobs at random places of generated stores, in turns."""
    spent: dict[Path, list[dict[str, float]]] = {place: [] for place in stores}
    with contextlib.ExitStack() as servers:
        serving = {place: servers.enter_context(_serving(place)) for place in stores}
        for _ in range(ROUNDS + 1):
            for place, running in serving.items():
                spent[place].append(_restarts(running, stores[place]))
    return {
        f"{subjobs}_subjobs": {
            what: round(statistics.median(row[what] for row in spent[place][1:]), 2)
            for what in spent[place][0]
        }
        for place, subjobs in stores.items()
    }


def _restarts(running: Running, subjobs: int, seconds: float = 5) -> dict[str, float]:
    started_at = time.time()
    before, cpu_before = running.disk_kib(), running.cpu_seconds()
    numbers = _held_at_random(int(CALM_PER_SECOND * seconds), subjobs)
    # Later than any start before, whichever run of this bench made it.
    starts = int((started_at - AT) * 1000)
    requests = [
        _start(running, number, subjobs, starts + nth) for nth, number in enumerate(numbers)
    ]
    outcome = checked(open_loop(running.port, iter(requests), CALM_PER_SECOND, seconds))
    count = len(outcome.latencies_seconds)
    read, written = (now - then for now, then in zip(running.disk_kib(), before, strict=True))
    return {
        "p50_ms": outcome.percentile_ms(50),
        "p99_ms": outcome.percentile_ms(99),
        "server_cpu_us_each": (running.cpu_seconds() - cpu_before) / count * 1e6,
        "disk_read_kib_each": read / count,
        "written_kib_each": written / count,
    }


def _held_at_random(count: int, subjobs: int) -> list[int]:
    numbers = range(ONE_HELD_OF, subjobs + 1, ONE_HELD_OF)
    held = [number for number in numbers if _workflow_of(number, subjobs) % 2]
    return random.choices(held, k=count)


def _start(running: Running, number: int, subjobs: int, starts: int) -> bytes:
    """Return the request of another start in the slot of the last one, which is thereby over."""
    body = {
        "request_id": f"restart-{starts}",
        "nonce": f"{NONCE}-{starts}",
        "global_job_id": f"ap1.example.org#{number:08d}.0#1795225431",
        "evidence": {"job_starts": starts, "shadow_starts": starts},
        "place": dataclasses.asdict(PLACE),
        "host": "ep1.example.org",
        "ttl_seconds": 3600,
    }
    workflow = f"w-{_workflow_of(number, subjobs):06d}"
    path = f"/v1/workflows/{workflow}/subjobs/s-{number:08d}/acquire"
    return post(path, running.admin_token, json.dumps(body).encode())


def _while_trimming(running: Running) -> dict[str, float]:
    """Return the latencies of writes while old workflows are deleted, and how many went."""
    url, seconds = f"http://127.0.0.1:{running.port}", 10.0
    # First grants only: a trim raises the fences of subjobs that are new.
    workflows = Workflows(running, f"trimming{time.time():.0f}")
    each = range(int(CALM_PER_SECOND * seconds / len(workflows.names)) + 1)
    made = workflows.each(workflows.acquire, each)
    acquires = iter([request for group in zip(*made, strict=True) for request in group])
    with tempfile.NamedTemporaryFile("w") as token:
        token.write(running.admin_token)
        token.flush()
        before = _subjobs(url)
        command = [sys.executable, "-m", "htlease_cli.cli", "store", "trim", "--older", "30d"]
        where = ["--server", url, "--admin-token-file", token.name]
        with subprocess.Popen([*command, *where], stdout=subprocess.DEVNULL) as trim:
            try:
                outcome = open_loop(running.port, acquires, CALM_PER_SECOND, seconds)
                gone = before - _subjobs(url)
            finally:
                trim.terminate()
    checked(outcome)
    return {
        "p50_ms": round(outcome.percentile_ms(50), 2),
        "p99_ms": round(outcome.percentile_ms(99), 2),
        "subjobs_gone_per_second": round(gone / seconds),
    }


def _subjobs(url: str) -> int:
    """Return how many cancelled subjobs the store has."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(r'htlease_subjobs\{status="cancelled"\} (\S+)', text)
    assert found, text
    return int(float(found[1]))
