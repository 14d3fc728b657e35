"""Sending one request until it is answered; DAG scripts load it at each start, so it is small."""

from __future__ import annotations

import os
import time

from htlease.errors import Refused, ServerUnavailable
from htlease.wire.transport import NoAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from htlease.wire.transport import Answer, Transport

VERSION = "v1"
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 10.0
_SECONDS_MAX = 1e9
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Clock:
    """Time and randomness, passed in so that tests can move them."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = lambda: int.from_bytes(os.urandom(6), "big") / (1 << 48),
        new_id: Callable[[], str] = lambda: os.urandom(16).hex(),
    ) -> None:
        #: Never set back; all deadlines here are on this clock.
        self.monotonic = monotonic
        #: The machine's idea of the time; sent as data, never compared.
        self.wall = wall
        self.sleep = sleep
        #: Uniform in [0, 1).
        self.random = random
        self.new_id = new_id


def quoted(name: str) -> str:
    """Return a name as one part of a path, percent-encoded."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in name.encode())


def workflow_path(workflow: str) -> str:
    """Return the path of a workflow, percent-encoded."""
    return f"/{VERSION}/workflows/{quoted(workflow)}"


def send(
    transport: Transport,
    clock: Clock,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    give_up_after_seconds: float,
) -> tuple[dict[str, Any], float]:
    """Exchange until there is an answer; return its document and when the request was sent.

    Retries what may succeed: no answer, or a server that is overloaded. `sent_at` is of the try
    that was answered. Raises Refused or ServerUnavailable.
    """

    def try_once() -> tuple[dict[str, Any], float]:
        sent_at = clock.monotonic()
        try:
            answer = transport.exchange(method, path, body)
        except NoAnswer as error:
            raise ServerUnavailable(str(error)) from error
        return _document(answer), sent_at

    try:
        return try_once()
    except ServerUnavailable:
        if give_up_after_seconds <= 0:
            raise
    # Imported on the first failure only: it costs as much as the rest of a wrapper's start.
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ServerUnavailable),
        wait=tenacity.wait_random_exponential(BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS),
        stop=tenacity.stop_before_delay(give_up_after_seconds),
        sleep=clock.sleep,
        reraise=True,
    )
    return retrying(try_once)


def _document(answer: Answer) -> dict[str, Any]:
    if 200 <= answer.status < 300:
        return answer.document
    refused = refused_from(answer.status, answer.document)
    if answer.status >= 500 or answer.status == 429 or not refused.code:
        # No code: not our server, a proxy in between perhaps; what it says may pass.
        raise ServerUnavailable(f"the server answered {answer.status}: {refused.detail}")
    if refused.retry_after_seconds is None and answer.retry_after_seconds is not None:
        refused.retry_after_seconds = answer.retry_after_seconds
    raise refused


def refused_from(status: int, document: Mapping[str, Any]) -> Refused:
    """Read a problem; an unknown code is kept as it is."""
    is_elsewhere = 300 <= status < 400
    no_detail = "it sends elsewhere; name the server itself" if is_elsewhere else "no reason given"
    return Refused(
        str(document.get("code", "")),
        str(document.get("detail", no_detail)),
        status=status,
        retry_after_seconds=_seconds(document.get("retry_after_seconds")),
        outcome=document.get("outcome"),
        field=document.get("field"),
        flag=document.get("flag"),
    )


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < _SECONDS_MAX else None  # NaN is in no range
