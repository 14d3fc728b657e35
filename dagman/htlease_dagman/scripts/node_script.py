"""What PRE and POST have in common: their lease, their words with the server, the user's script.

A script never sleeps for long: what cannot be done now is put off by raising `RetryLater`, and
DAGMan starts the script again (`SCRIPT DEFER`).
"""

from __future__ import annotations

import os
import sys
import time

from htlease.errors import HTLeaseError, Refused, ServerUnavailable
from htlease.wire.retry import Clock, quoted, send, workflow_path
from htlease.wire.transport import HttpTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from htlease_dagman.scripts.dag_settings import Settings
    from htlease_dagman.scripts.invocation import Call
    from htlease_dagman.scripts.node_record import NodeRecord

_RENEW_PART = 1 / 4
_ASK_AGAIN_MIN_SECONDS = 0.2
_EXCHANGE_MIN_SECONDS = 1.0


class RetryLater(Exception):
    """The script cannot go on now; the text says why. `is_counted`: not for ever."""

    def __init__(self, why: str, is_counted: bool = True) -> None:
        super().__init__(why)
        self.is_counted = is_counted


class NodeFails(HTLeaseError):
    """The node fails; the text says why and what to do."""


class Lease:
    """What every write of a script carries."""

    def __init__(self, nonce: str, grant: dict[str, Any]) -> None:
        self.fence: int = grant["fence"]
        self.nonce = nonce
        #: The phases that were not complete when nobody else could write any more.
        self.missing = [one["name"] for one in grant["phases"] if not one["completed"]]


class Server:
    """The lease server, as far as one script can wait for it."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is sent yet. Raises BadConfig."""
        wait_seconds = settings.wait_server_seconds
        self._transport = HttpTransport(
            settings.server,
            settings.token(),
            exchange_seconds=max(_EXCHANGE_MIN_SECONDS, wait_seconds),
        )
        self._clock = Clock()
        #: All waiting of a script for its server together ends here.
        self._give_up_at = self._clock.monotonic() + wait_seconds

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask until there is an answer; raises Refused or ServerUnavailable."""
        left_seconds = self._give_up_at - self._clock.monotonic()
        return send(self._transport, self._clock, method, path, body, left_seconds)[0]


class Script:
    """One running script of one node."""

    def __init__(
        self,
        settings: Settings,
        call: Call,
        record: NodeRecord | None,
        server: Server,
        subjob: str | None = None,
    ) -> None:
        """Prepare; without a record nobody goes on with its lease."""
        self.settings = settings
        self.call = call
        self.record = record
        #: The node's, or that of one job of a node that has several.
        self.subjob = subjob or call.node
        #: The scripts that the user gave this node.
        self.chained = settings.scripts(call.node)
        self._server = server
        self._path = f"{workflow_path(settings.workflow)}/subjobs/{quoted(self.subjob)}"

    def of_jobs(self) -> list[Script]:
        """Return the same for each job of a node that has several: subjobs of their own."""
        if self.chained.jobs < 2:
            return []
        return [self.of(f"{self.call.node}.{number}") for number in range(self.chained.jobs)]

    def of(self, subjob: str) -> Script:
        """Return the same for another subjob of the workflow."""
        return Script(self.settings, self.call, None, self._server, subjob)

    def say(self, text: str) -> None:
        """Tell whoever reads DAGMan's script output."""
        print(f"htlease {self.call.kind} {self.call.node}: {text}", file=sys.stderr)

    # The server

    def send(self, command: str, lease: Lease | None = None, **body: Any) -> dict[str, Any]:
        """Send a command, under a lease if one is given; raises Refused or ServerUnavailable."""
        if lease is not None:
            body |= {"fence": lease.fence, "nonce": lease.nonce}
        given = {name: value for name, value in body.items() if value is not None}
        # One ID however often it is sent, so a lost answer does no harm.
        given["request_id"] = os.urandom(16).hex()
        return self._server.ask("POST", f"{self._path}/{command}", given)

    def document(self) -> dict[str, Any]:
        """Return all that is known of the subjob."""
        return self._server.ask("GET", self._path)

    def flags_down(self) -> dict[str, str | None]:
        """Return the flags that are down for this workflow, with the reasons given."""
        path = f"/v1/flags?workflow={quoted(self.settings.workflow)}"
        flags = self._server.ask("GET", path)["flags"]
        return {one["name"].partition("@")[0]: one["reason"] for one in flags if not one["is_up"]}

    def mint_job_token(self) -> str:
        """Return a token for this node's job."""
        wanted = {
            "workflow": self.settings.workflow,
            "subjob": self.subjob,
            "ttl_seconds": self.settings.job_token_seconds,
        }
        token: str = self._server.ask("POST", "/v1/tokens", wanted)["token"]
        return token

    # The lease

    def acquire(self, global_job_id: str, wait_seconds: float = 0.0) -> Lease:
        """Return the lease; raises RetryLater, Refused or ServerUnavailable.

        After a crash the nonce of the script before is used again: it is over, or its lock would
        still be there.
        """
        nonce = self.record.script_state.nonce if self.record and self.record.is_alone else None
        until = time.monotonic() + wait_seconds
        while True:
            is_inherited = nonce is not None
            if nonce is None:
                nonce = os.urandom(16).hex()
                if self.record is not None:
                    self.record.save(nonce=nonce)
            start = self.call.dagman_start
            try:
                grant = self.send(
                    "acquire",
                    nonce=nonce,
                    kind=self.call.kind,
                    evidence={} if start is None else {"job_starts": start},
                    global_job_id=global_job_id,
                    host=os.uname().nodename,
                    ttl_seconds=self.settings.ttl_seconds,
                )
            except Refused as refused:
                if refused.code == "superseded-attempt" and is_inherited:
                    nonce = None  # its lease had ended; this script asks on its own account
                    continue
                if refused.code not in ("lease-still-live", "blocked"):
                    raise
                pause_seconds = max(_ASK_AGAIN_MIN_SECONDS, refused.retry_after_seconds or 0.0)
                if time.monotonic() + pause_seconds > until:
                    # PRE is of a later submission than any holder: it is recalled and ends soon.
                    is_counted = self.call.kind == "post" and refused.code != "blocked"
                    raise RetryLater(refused.detail, is_counted) from None
                time.sleep(pause_seconds)
            else:
                return Lease(nonce, grant)

    def abandon(self, lease: Lease, reason: str) -> None:
        """Let go of the lease; from a server that is away the next script takes it over."""
        try:
            self.send("abandon", lease, reason=reason)
        except ServerUnavailable:
            return
        except Refused:
            pass
        if self.record is not None:
            self.record.save(nonce=None)

    # The user's script

    def run_user_script(self, words: Sequence[str], lease: Lease | None) -> int:
        """Run the user's script, keep the lease meanwhile, return its exit status."""
        from htlease_dagman.scripts import user_script  # loads what starts processes

        try:
            return user_script.run(
                self.call.expand(words),
                lambda: lease is not None and self._is_lost(lease),
                self.settings.ttl_seconds * _RENEW_PART,
            )
        except user_script.Ended:
            raise NodeFails(
                f"{words[0]} was ended, for a later submission has taken the node over"
            ) from None

    def _is_lost(self, lease: Lease) -> bool:
        try:
            return bool(self.send("renew", lease)["order"] != "continue")
        except Refused:
            return True
        except ServerUnavailable:
            return False
