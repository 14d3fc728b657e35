"""Many holders at once: each with a connection of its own, spread over a few processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from bench.load import Outcome, closed_loop, post

NONCE = "nonce-of-one-of-a-crowd"
_NUMBERS = itertools.count()


def _request(token: str, holder: int, call: str, **body: object) -> bytes:
    body = {"request_id": f"crowd-{holder}-{next(_NUMBERS)}", "nonce": NONCE, **body}
    path = f"/v1/workflows/crowd-{holder % 50}/subjobs/s-{holder:05d}/{call}"
    return post(path, token, json.dumps(body).encode())


def acquire(port: int, token: str, holders: range, ttl_seconds: float) -> dict[bytes, int]:
    """Acquire for each holder over 50 connections; return refusals by status."""
    parts = [holders[start::50] for start in range(50)]
    requests: list[Iterator[bytes]] = [
        (_request(token, holder, "acquire", ttl_seconds=ttl_seconds) for holder in part)
        for part in parts
    ]
    return closed_loop(port, requests).refusals


def renew_at_once(port: int, token: str, holders: range) -> tuple[int, dict[bytes, int]]:
    """Send one renewal of each holder, all at the same time; return answers and refusals."""
    requests = [iter([_request(token, holder, "renew", fence=1)]) for holder in holders]
    return _counted(closed_loop(port, requests))


def flood(port: int, token: str, seconds: float) -> tuple[int, dict[bytes, int]]:
    """Acquire one new lease after the other over 50 connections; return answers and refusals."""

    def newcomers(connection: int) -> Iterator[bytes]:
        for number in itertools.count():
            yield _request(token, 1_000_000 + number * 50 + connection, "acquire")

    return _counted(closed_loop(port, [newcomers(number) for number in range(50)], seconds))


def _counted(outcome: Outcome) -> tuple[int, dict[bytes, int]]:
    return len(outcome.latencies_seconds), outcome.refusals
