"""The caller's end of a lease: send commands until they are answered, and know the deadline.

Promised: a command has one request ID however often it is sent, so a lost reply does no harm.
Not promised: that the server still agrees when a deadline computed here lies ahead; only an
answer to a fenced write says that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from htlease import messages as m
from htlease import protocol
from htlease.attempt import SubjobKey
from htlease.errors import Refused, ServerUnavailable
from htlease.transport import Answer, NoAnswer, Transport

#: The part of a lease that is not relied on: clocks of two machines do not tick alike.
CLOCK_RATE_MARGIN = 0.02
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 10.0


@dataclass(frozen=True)
class Clock:
    """Time and chance, passed in so that tests can move them."""

    #: Never set back; all deadlines here are on this clock.
    monotonic: Callable[[], float] = time.monotonic
    #: The machine's idea of the time; sent as data, never compared.
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    #: Uniform in [0, 1).
    chance: Callable[[], float] = lambda: int.from_bytes(os.urandom(6), "big") / (1 << 48)
    new_id: Callable[[], str] = lambda: os.urandom(16).hex()


@dataclass(frozen=True)
class Lease:
    """A granted lease as its holder sees it."""

    grant: m.Grant
    nonce: str
    ttl_seconds: float
    #: On the monotonic clock, counted from before the request was sent, less a margin.
    deadline: float

    @property
    def fence(self) -> int:
        """The number that every write carries."""
        return self.grant.fence

    def renewed(self, expires_in_seconds: float, sent_at: float) -> Lease:
        """Return the lease with the deadline that an answer gave it."""
        return replace(self, deadline=deadline_of(expires_in_seconds, sent_at))


def deadline_of(expires_in_seconds: float, sent_at: float) -> float:
    """Return the instant, on the sender's monotonic clock, to which a lease can be relied on."""
    return sent_at + expires_in_seconds * (1 - CLOCK_RATE_MARGIN)


@dataclass
class LeaseClient:
    """Speaks for one subjob."""

    transport: Transport
    key: SubjobKey
    clock: Clock = field(default_factory=Clock)

    def acquire(self, command: m.Acquire, *, give_up_after_seconds: float = 0.0) -> Lease:
        """Ask once for the lease; raises Refused (wait and ask again) or ServerUnavailable."""
        document, sent_at = self._call(command, give_up_after_seconds)
        grant = protocol.grant_from(document)
        deadline = deadline_of(grant.expires_in_seconds, sent_at)
        return Lease(grant, command.nonce, command.ttl_seconds, deadline)

    def renew(
        self, lease: Lease, details: str | None = None, *, give_up_after_seconds: float = 0.0
    ) -> tuple[Lease, m.Renewal]:
        """Move the deadline; raises Refused when the lease is another's, or ServerUnavailable."""
        command = m.Renew(lease.fence, lease.nonce, details)
        document, sent_at = self._call(command, give_up_after_seconds)
        renewal = protocol.renewal_from(document)
        return lease.renewed(renewal.expires_in_seconds, sent_at), renewal

    def call(self, command: m.Command, *, give_up_after_seconds: float = 0.0) -> dict[str, Any]:
        """Send a command until it is answered and return the answer's document.

        Raises Refused, or ServerUnavailable once `give_up_after_seconds` would be passed; 0 sends
        once.
        """
        return self._call(command, give_up_after_seconds)[0]

    def _call(
        self, command: m.Command, give_up_after_seconds: float
    ) -> tuple[dict[str, Any], float]:
        path = protocol.command_path(self.key, command)
        client_at = protocol.rfc3339(self.clock.wall())
        body = protocol.body_of(command, self.clock.new_id(), client_at)
        return send(self.transport, self.clock, "POST", path, body, give_up_after_seconds)


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
    refused = protocol.refused_from(answer.status, answer.document)
    if answer.status >= 500 or answer.status == 429 or not refused.code:
        # No code: not our server, a proxy in between perhaps; what it says may pass.
        raise ServerUnavailable(f"the server answered {answer.status}: {refused.detail}")
    if refused.retry_after_seconds is None and answer.retry_after_seconds is not None:
        refused.retry_after_seconds = answer.retry_after_seconds
    raise refused


__all__ = ["Clock", "Lease", "LeaseClient", "Refused", "deadline_of", "send"]
