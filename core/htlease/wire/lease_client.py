"""The caller's end of a lease: send commands until they are answered, and know the deadline.

Promised: a command has one request ID however often it is sent, so a lost reply does no harm.
Not promised: that the server still agrees when a deadline computed here lies ahead; only an
answer to a fenced write says that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire import protocol
from htlease.wire.retry import Clock, send

if TYPE_CHECKING:
    from htlease.wire.transport import Transport

#: The part of a lease that is not relied on: clocks of two machines do not tick alike.
CLOCK_RATE_MARGIN = 0.02


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

    def call(
        self,
        command: m.Command,
        *,
        give_up_after_seconds: float = 0.0,
        meant_at: float | None = None,
    ) -> dict[str, Any]:
        """Send a command until it is answered and return the answer's document.

        Raises Refused, or ServerUnavailable once `give_up_after_seconds` would be passed; 0 sends
        once. `meant_at` is for one that is sent late, by the wall clock.
        """
        return self._call(command, give_up_after_seconds, meant_at)[0]

    def _call(
        self, command: m.Command, give_up_after_seconds: float, meant_at: float | None = None
    ) -> tuple[dict[str, Any], float]:
        path = protocol.command_path(self.key, command)
        client_at = protocol.rfc3339(self.clock.wall() if meant_at is None else meant_at)
        body = protocol.body_of(command, self.clock.new_id(), client_at)
        return send(self.transport, self.clock, "POST", path, body, give_up_after_seconds)
