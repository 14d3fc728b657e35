"""Calls from inside a payload that manages its phases itself, under the wrapper's lease.

Fence and nonce come from `.htlease.json`, which the wrapper around the payload keeps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig, Refused, ServerUnavailable
from htlease.execution.connect import transport_to
from htlease.execution.credentials import find_token, keep_renewed, renewed_token
from htlease.execution.job import find_job, own_variables
from htlease.execution.sandbox_state import FOLDER, STATE_FILE, read_state
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.lease_client import LeaseClient
from htlease.wire.retry import Clock
from htlease_wrapper.console import Console
from htlease_wrapper.details import DetailsFile
from htlease_wrapper.exit_status import BAD_CONFIG, SUPERSEDED, TRY_LATER, WrapperExit
from htlease_wrapper.late_lease import wait_for_fence

_LOST_CODES = frozenset({"superseded-attempt", "stale-fence", "unknown-subjob", "subjob-closed"})


@dataclass(frozen=True)
class PayloadCall:
    """Speaks to the server for the payload."""

    client: LeaseClient
    home: Path
    fence: int
    nonce: str
    wait_server_seconds: float
    console: Console

    def enter(self, phase: str) -> str:
        """Return `run`, or `skip` for what an attempt has done for good."""
        try:
            record = self._send(m.Enter(self.fence, self.nonce, phase))
        except Refused as refused:
            if refused.code == "phase-order" and self._is_done(phase):
                return "skip"
            raise _leave(refused) from None
        details = record.get("details")
        if details is not None:
            try:
                DetailsFile(self.home).put(details)
            except OSError as error:
                self.console.say(f"the saved details cannot be handed over: {error.strerror}")
        return "run"

    def complete(self, phase: str, artifacts: Mapping[str, str]) -> None:
        """Record that a phase is done."""
        self._do(m.Complete(self.fence, self.nonce, phase, artifacts))

    def fail(self, phase: str, reason: str | None, exit_code: int | None) -> None:
        """Record that this attempt could not do a phase."""
        self._do(m.Fail(self.fence, self.nonce, phase, reason, exit_code))

    def save_details(self, name: str) -> None:
        """Save a file, or standard input for `-`, as the details of the current phase."""
        try:
            with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
                data = file.read(m.DETAILS_MAX_BYTES + 1)
            if len(data) > m.DETAILS_MAX_BYTES:
                raise BadConfig(
                    f"details {name}: is too long; {m.DETAILS_MAX_BYTES} is the limit, in bytes"
                )
            details = data.decode("utf-8")
        except OSError as error:
            raise BadConfig(f"details {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadConfig(f"details {name}: is not UTF-8 text") from None
        answer = self._do(m.Renew(self.fence, self.nonce, details))
        fresh = renewed_token(answer)
        if fresh is not None:
            try:
                keep_renewed(self.home / FOLDER, fresh)
            except OSError:
                pass  # the wrapper's own renewals bring one too

    def _is_done(self, phase: str) -> bool:
        """Ask again for the grant that we have, which says what is left to run."""
        document = self._send(m.Acquire(nonce=self.nonce))
        return any(
            known["name"] == phase and known["completed"] and not known["run"]
            for known in document["phases"]
        )

    def _do(self, command: m.Command) -> dict[str, Any]:
        try:
            return self._send(command)
        except Refused as refused:
            raise _leave(refused) from None

    def _send(self, command: m.Command) -> dict[str, Any]:
        try:
            return self.client.call(command, give_up_after_seconds=self.wait_server_seconds)
        except ServerUnavailable as error:
            raise WrapperExit(
                TRY_LATER, f"the server does not answer ({error}); try again later"
            ) from None


def open_call(
    environ: Mapping[str, str], console: Console, wait_server_seconds: float
) -> PayloadCall:
    """Return the way to the server for a payload; raises BadConfig outside of one."""
    job = find_job(environ)
    sandbox, environ = job.sandbox, own_variables(environ, job)
    home = Path(environ.get("HTLEASE_SANDBOX") or sandbox)
    state = wait_for_fence(lambda: read_state(home), wait_server_seconds)
    if state is not None and state.fence is None and state.is_in_use:
        raise WrapperExit(TRY_LATER, "there is no lease: the server is away; try again later")
    if state is None or state.fence is None:
        raise BadConfig(
            f"{home / STATE_FILE} has no lease; call this from a payload that was started by "
            "`htlease-ep.pyz run`"
        )
    console.subjob, console.attempt_number = state.key, state.attempt_number
    # A payload may have changed its directory, so the wrapper's is looked at too.
    uid = os.geteuid()
    token = find_token(environ, sandbox, uid, home) or find_token(environ, home, uid)
    transport = transport_to(state.server, token.text if token else None, sandbox, environ)
    client = LeaseClient(transport, SubjobKey.parse(state.key), Clock())
    return PayloadCall(client, home, state.fence, state.nonce, wait_server_seconds, console)


def artifacts_from(pairs: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE pairs; raises BadConfig."""
    artifacts = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise BadConfig(f"--artifact {pair!r} is not NAME=VALUE")
        artifacts[name] = value
    return artifacts


def _leave(refused: Refused) -> WrapperExit:
    if refused.code == "blocked":
        return WrapperExit(TRY_LATER, f"{refused.detail}; call this again later, the lease stays")
    code = SUPERSEDED if refused.code in _LOST_CODES else BAD_CONFIG
    return WrapperExit(code, str(refused))
