"""Tells the server how jobs ended, so that no subjob stays open behind a job that is gone."""

from __future__ import annotations

import logging
import secrets
import socket

from htlease.client.client import Document, LeaseServer
from htlease.condor.queued_ad import REMOVED
from htlease.errors import InvalidField, Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.end_proof import Finding
from htlease.rules.plan import is_wall_time
from htlease_agent.reconcile.evidence import Evidence
from htlease_agent.reconcile.job_end import Closing, End, closing_of, is_about
from htlease_agent.reconcile.own_keys import own_key
from htlease_agent.reconcile.routed_copies import as_of_copy

#: The agent's own lease spans the few calls that close a subjob.
_TTL_SECONDS = 30.0
_MAY_HOLD = ("active", "recalled", "lapsed")

log = logging.getLogger("htlease_agent")


class Reports:
    """Reports ends; the same one may be reported any number of times."""

    def __init__(self, server: LeaseServer, evidence: Evidence | None) -> None:
        """Prepare; without evidence a lease that is live is left to another's report."""
        self.server = server
        self._evidence = evidence

    def report(self, end: End) -> bool:
        """Report an end; False when it has to be done again later, since a lease is still live.

        Raises ServerUnavailable.
        """
        try:
            key, subjob = self._subjob_of(end)
        except InvalidField:
            return True  # the key of no subjob that ever was
        except Refused as refused:
            if refused.code != "unknown-subjob":
                log.error(
                    "%s: the end of %s is not reported: %s", end.key, end.global_job_id, refused
                )
                return True
            log.info("%s: the server knows nothing of %s", end.key, end.global_job_id)
            return True
        of_source, end = end, as_of_copy(end, subjob)
        if subjob["outcome"] is None and is_about(end, subjob):
            self._tell(key, end, subjob, is_source=end is not of_source)
        closing = closing_of(end, subjob)
        return closing is None or self._close(key, end, closing)

    def _subjob_of(self, end: End) -> tuple[SubjobKey, Document]:
        """Return the subjob that a job worked on; raises Refused or InvalidField."""
        key = SubjobKey.parse(end.key)
        if not end.is_stamped:
            return key, self.server.subjob(key)
        own = own_key(self.server, key, end.global_job_id)
        return own, self.server.subjob(own)

    def _tell(self, key: SubjobKey, end: End, subjob: Document, is_source: bool) -> None:
        """End the lease of the start if that is proven to be over, else leave a remark."""
        if end.status == REMOVED:
            self.server.command(key, end.remark(""))
        if subjob["status"] == "abandoned" and is_wall_time(end.reason):
            self.server.command(key, end.ended())  # explains what is over already
        elif subjob["status"] in _MAY_HOLD and self._evidence is not None:
            # A source's log does not tell of its copy's processes; the copy's own end does.
            found = (
                Finding(False, "it is the end of its source alone")
                if is_source
                else self._evidence.finding(end)
            )
            self.server.command(key, end.ended() if found.is_proof else end.remark(found.why))

    def _close(self, key: SubjobKey, end: End, closing: Closing) -> bool:
        nonce = secrets.token_hex(16)
        acquire = m.Acquire(
            nonce,
            "operator",
            # Of this very submission: a later one makes this an older caller, and refuses it.
            global_job_id=end.global_job_id,
            host=socket.gethostname(),
            ttl_seconds=_TTL_SECONDS,
        )
        try:
            fence = self.server.command(key, acquire, "fence")["fence"]
        except Refused as refused:
            if refused.code == "lease-still-live":
                return False
            log.info("%s: nothing to close (%s)", key, refused.code)
            return True
        try:
            for phase in closing.shown_complete:
                self.server.command(key, m.Enter(fence, nonce, phase, is_underway=True), "name")
                self.server.command(key, m.Complete(fence, nonce, phase), "name")
            if closing.outcome == "complete":
                self.server.command(key, m.Commit(fence, nonce, closing.reason))
            else:
                self.server.command(key, m.Settle(fence, nonce, closing.outcome, closing.reason))
        except Refused as refused:
            log.error("%s: not closed as %s: %s", key, closing.outcome, refused)
            self.server.command(key, m.Abandon(fence, nonce, f"could not close: {refused.code}"))
            return True
        log.info("%s: %s (%s)", key, closing.outcome, closing.reason)
        return True
