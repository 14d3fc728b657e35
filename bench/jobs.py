"""What the load consists of: whole jobs as wrappers live them, prepared before it is sent."""

from __future__ import annotations

import itertools
import json
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.load import Outcome, closed_loop, post
from bench.machine import Running, server

CONNECTIONS = 64
#: Jobs of all connections in one round.
LIVES = 2_560
NONCE = "bench-nonce-0123456789"
PHASES = ("stage-in", "compute", "stage-out")
PLAN = [{"name": "stage-in"}, {"name": "compute", "restart": "resume"}, {"name": "stage-out"}]


class Workflows:
    """Prepared requests on behalf of many jobs, with a job token for each workflow."""

    def __init__(self, running: Running, name: str, count: int = CONNECTIONS) -> None:
        self._ids = itertools.count()
        self.names = [f"{name}-{number}" for number in range(count)]
        self._tokens = {workflow: _mint(running, workflow) for workflow in self.names}

    def _request(self, workflow: str, subjob: int, call: str, **body: Any) -> bytes:
        body = {"request_id": f"bench-{next(self._ids):012d}", "nonce": NONCE, **body}
        path = f"/v1/workflows/{workflow}/subjobs/s-{subjob:06d}/{call}"
        return post(path, self._tokens[workflow], json.dumps(body).encode())

    def acquire(self, workflow: str, subjob: int) -> bytes:
        """Return the request of a first attempt, with all that a wrapper sends."""
        return self._request(
            workflow,
            subjob,
            "acquire",
            global_job_id=f"ap1.example.org#{subjob}.0#1795225431",
            evidence={"job_starts": 1, "shadow_starts": 1, "shadow_birthdate": 1795225431},
            place={"machine": "ep1", "slot": "slot1_1@ep1", "startd": "<10.0.0.1:9618>#17952"},
            host="ep1.example.org",
            plan={"phases": PLAN},
            ttl_seconds=3600,
        )

    def lives(self, workflow: str, subjobs: range) -> Iterator[bytes]:
        """Yield the durable writes of whole jobs, one job after the other."""
        for subjob in subjobs:
            yield self.acquire(workflow, subjob)
            for phase in PHASES:
                yield self._request(workflow, subjob, f"phases/{phase}/enter", fence=1)
                yield self._request(workflow, subjob, f"phases/{phase}/complete", fence=1)
            yield self._request(workflow, subjob, "exited", fence=1, exit_code=0)

    def each(
        self, make: Callable[[str, int], bytes], subjobs: Iterable[int]
    ) -> list[Iterator[bytes]]:
        """Return one iterator of requests for each workflow."""
        wanted = list(subjobs)

        def requests(workflow: str) -> Iterator[bytes]:
            return (make(workflow, subjob) for subjob in wanted)

        return [requests(workflow) for workflow in self.names]

    def all_lives(self, subjobs: range) -> list[Iterator[bytes]]:
        """Return one iterator of whole jobs for each workflow."""
        return [self.lives(workflow, subjobs) for workflow in self.names]

    def renew(self, workflow: str, subjob: int) -> bytes:
        """Return a renewal."""
        return self._request(workflow, subjob, "renew", fence=1)


def _mint(running: Running, workflow: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.port}/v1/tokens",
        json.dumps({"workflow": workflow, "ttl_seconds": 86400}).encode(),
        {"Authorization": f"Bearer {running.admin_token}"},
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["token"])


def prepared(iterators: Sequence[Iterator[bytes]]) -> list[Iterator[bytes]]:
    """Make all requests beforehand, so that making them costs the server nothing."""
    return [iter(list(iterator)) for iterator in iterators]


def checked(outcome: Outcome) -> Outcome:
    if outcome.refusals:
        raise SystemExit(f"the load was refused: {outcome.refusals}")
    return outcome


def full_load(
    running: Running,
    prefix: str,
    others: Sequence[Running] = (),
    connections: int = CONNECTIONS,
) -> tuple[Outcome, int]:
    """Return one round of whole jobs as fast as they go, and the servers' µs for each request."""
    servers = [running, *others]
    lives = range(LIVES // connections)
    requests = prepared(Workflows(running, prefix, connections).all_lives(lives))
    before = sum(each.cpu_seconds() for each in servers)
    outcome = checked(closed_loop([each.port for each in servers], requests))
    cpu_seconds = sum(each.cpu_seconds() for each in servers) - before
    return outcome, round(cpu_seconds / len(outcome.latencies_seconds) * 1e6)


def htlease(directory: Path) -> Any:
    """Run a server whose state is in a directory, which is emptied; a context."""
    for path in directory.glob("*"):
        if path.is_file():
            path.unlink()
    return server(
        directory,
        "htlease_server",
        *("--listen", "127.0.0.1:0", "--state-dir", str(directory), "--log-level", "warning"),
    )
