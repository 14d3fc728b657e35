"""What PRE and POST have in common: their lease, their words with the server, the user's script.

A script never sleeps for long: what cannot be done now is put off by raising `Later`, and DAGMan
starts the script again (`SCRIPT DEFER`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from htlease import messages as m
from htlease import protocol
from htlease.attempt import SubjobKey
from htlease.client import Clock, Lease, LeaseClient, send
from htlease.errors import HTLeaseError, Refused, ServerUnavailable
from htlease.transport import HttpTransport
from htlease_dagman import chain
from htlease_dagman.call import Call
from htlease_dagman.record import Record
from htlease_dagman.settings import NodeScripts, Settings

_RENEW_PART = 1 / 4
_ASK_AGAIN_MIN_SECONDS = 0.2


class Later(Exception):
    """The script cannot go on now; the text says why. `is_counted`: not for ever."""

    def __init__(self, why: str, is_counted: bool = True) -> None:
        super().__init__(why)
        self.is_counted = is_counted


class NodeFails(HTLeaseError):
    """The node fails; the text says why and what to do."""


@dataclass
class Script:
    """One running script of one node."""

    settings: Settings
    call: Call
    record: Record
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        wait_seconds = self.settings.wait_server_seconds
        self._transport = HttpTransport(
            self.settings.server, self.settings.token(), exchange_seconds=max(1.0, wait_seconds)
        )
        self.key = SubjobKey(self.settings.workflow, self.call.node)
        self._client = LeaseClient(self._transport, self.key, self.clock)
        self._give_up_at = self.clock.monotonic() + wait_seconds

    @property
    def scripts(self) -> NodeScripts:
        """The scripts that the user gave this node."""
        return self.settings.nodes.get(self.call.node) or NodeScripts()

    def say(self, text: str) -> None:
        """Tell whoever reads DAGMan's script output."""
        print(f"htlease {self.call.kind} {self.call.node}: {text}", file=sys.stderr)

    # The server

    @property
    def _left_seconds(self) -> float:
        return max(0.0, self._give_up_at - self.clock.monotonic())

    def send(self, command: m.Command) -> dict[str, Any]:
        """Send a command; raises Refused or ServerUnavailable."""
        return self._client.call(command, give_up_after_seconds=self._left_seconds)

    def document(self) -> dict[str, Any]:
        """Return all that is known of the subjob."""
        return self._exchange("GET", protocol.subjob_path(self.key), None)

    def mint_job_token(self) -> str:
        """Return a token for this node's job."""
        body = {
            "workflow": self.key.workflow,
            "subjob": self.key.subjob,
            "ttl_seconds": self.settings.job_token_seconds,
        }
        token: str = self._exchange("POST", f"/{protocol.VERSION}/tokens", body)["token"]
        return token

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        return send(self._transport, self.clock, method, path, body, self._left_seconds)[0]

    # The lease

    def acquire(self, global_job_id: str, wait_seconds: float = 0.0) -> Lease:
        """Return the lease; raises Later, Refused or ServerUnavailable.

        After a crash the nonce of the script before is used again: it is over, or its lock would
        still be there.
        """
        nonce = self.record.note.nonce if self.record.is_alone else None
        until = self.clock.monotonic() + wait_seconds
        while True:
            is_inherited = nonce is not None
            if nonce is None:
                nonce = self.clock.new_id()
                self.record.save(nonce=nonce)
            command = m.Acquire(
                nonce,
                self.call.kind,
                self.call.evidence,
                global_job_id=global_job_id,
                host=os.uname().nodename,
                ttl_seconds=self.settings.ttl_seconds,
            )
            try:
                return self._client.acquire(command, give_up_after_seconds=self._left_seconds)
            except Refused as refused:
                if refused.code == "superseded-attempt" and is_inherited:
                    nonce = None  # its lease had ended; this script asks on its own account
                    continue
                if refused.code not in ("lease-still-live", "blocked"):
                    raise
                pause_seconds = max(_ASK_AGAIN_MIN_SECONDS, refused.retry_after_seconds or 0.0)
                if self.clock.monotonic() + pause_seconds > until:
                    raise Later(refused.detail, refused.code != "blocked") from None
                self.clock.sleep(pause_seconds)

    def abandon(self, lease: Lease, reason: str) -> None:
        """Let go of the lease; from a server that is away the next script takes it over."""
        try:
            self._client.call(m.Abandon(lease.fence, lease.nonce, reason))
        except ServerUnavailable:
            return
        except Refused:
            pass
        self.record.save(nonce=None)

    # The user's script

    def run_chained(self, words: tuple[str, ...], lease: Lease | None) -> int:
        """Run the user's script, keep the lease meanwhile, return its exit status."""
        try:
            return chain.run(
                self.call.expand(words),
                lambda: lease is not None and self._is_lost(lease),
                self.settings.ttl_seconds * _RENEW_PART,
            )
        except chain.Ended:
            raise NodeFails(
                f"{words[0]} was ended, for a later submission has taken the node over"
            ) from None

    def _is_lost(self, lease: Lease) -> bool:
        try:
            return self._client.renew(lease)[1].order != "continue"
        except Refused:
            return True
        except ServerUnavailable:
            return False
