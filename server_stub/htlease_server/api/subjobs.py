"""Commands on their way from a request to the writer, and back as an answer.

This is what the server spends its time on, so it is plain calls: no task, no future.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from time import perf_counter

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.protocol import reply_document, rfc3339
from htlease_server.api import routes
from htlease_server.api.request_log import note_command
from htlease_server.auth.job_tokens import MintedToken, OwnTokens
from htlease_server.auth.principal import Caller
from htlease_server.counters import RequestCounters
from htlease_server.engine.batch import Answer, Crashed, PendingRequest, QueueFull
from htlease_server.engine.commit.store_writer import RETRY_AFTER_SECONDS, StoreWriter
from htlease_server.engine.site.audit import AuditEntry
from htlease_server.engine.site.flags import PutFlag
from htlease_server.engine.site.maintenance import WindowChange
from htlease_server.engine.site.retention import Trim, Trimmed
from htlease_server.engine.site.workflows import PutWorkflow
from htlease_server.http.messages import Answer as HttpAnswer
from htlease_server.http.messages import Refusal, Replier, Request, document, problem
from htlease_server.logs import is_noted, note
from htlease_server.models.request_models import READERS
from htlease_server.store.base import AuditRow, FlagRow, MaintenanceRow, WorkflowRow

INTERNAL = m.Rejection("internal", "the server made a mistake; its log says more")
VIA_MAX_CHARS = 200
#: Names that need not be read and checked again.
KEYS_KEPT = 20_000


class Exchange:
    """A command on its way: where the writer puts the outcome."""

    __slots__ = ("_commands", "_is_done", "_replier", "_started", "call", "caller", "pending")
    pending: PendingRequest

    def __init__(
        self, commands: Commands, call: str, caller: Caller, replier: Replier, started: float
    ) -> None:
        self._commands = commands
        self._replier = replier
        self._started = started
        self._is_done = False
        self.call = call
        self.caller = caller

    def done(self) -> bool:
        """Tell whether the outcome is known."""
        return self._is_done

    def set_result(self, outcome: Answer) -> None:
        """Answer with the outcome."""
        self._is_done = True
        seconds = perf_counter() - self._started
        try:
            answer = self._commands.answer_to(self, outcome, seconds)
        except Exception:  # a mistake of ours; the client is to hear of it
            note(logging.ERROR, "wording an answer failed", trace=True, subjob=self.pending.key)
            answer = problem(INTERNAL, self.pending.key)
        # It knows this exchange: left to the garbage collector, the two cost a tenth of a write.
        del self.pending
        self._commands.counters.add(self.call, answer.code, seconds)
        self._replier.answer(answer)


class Commands:
    """Takes commands for the writer, and puts its outcomes into words; made in the event loop."""

    def __init__(
        self,
        store_writer: StoreWriter,
        tokens: OwnTokens,
        counters: RequestCounters,
        hold_back: Callable[[Caller], None] | None = None,
    ) -> None:
        """`hold_back` raises Refusal for a renewal with details that comes too soon."""
        self._store_writer = store_writer
        self._hold_back = hold_back
        self._tokens = tokens
        self.counters = counters

    def submit(
        self,
        call: str,
        caller: Caller,
        parts: tuple[bytes, ...],
        request: Request,
        replier: Replier,
        started: float,
    ) -> None:
        """Queue a command; raises Refusal or InvalidField for what the writer need not see."""
        key = key_of(parts)
        is_own_only = not caller.may_see(key.workflow, key.subjob)
        if is_own_only and not caller.may_own:
            raise Refusal("forbidden", caller.out_of_scope(key))
        if not caller.may(call):
            raise Refusal("forbidden", caller.why_no_call(call))
        phase = routes.decoded("phase", parts[2]) if len(parts) == 3 else None
        command_request = READERS[call].read(request.body, phase)
        if self._hold_back is not None and isinstance(command_request.command, m.Renew):
            if command_request.command.details is not None:  # it is written to the disk
                self._hold_back(caller)
        if isinstance(command_request.command, m.Acquire):
            forbidden = caller.why_not_acquire(command_request.command)
            if forbidden:
                raise Refusal("forbidden", forbidden)
        via = _via(request.headers.get(b"via"))
        exchange = Exchange(self, call, caller, replier, started)
        exchange.pending = PendingRequest(
            key, command_request, caller.actor, exchange, via, caller.owner, is_own_only
        )
        try:
            self._store_writer.submit(exchange.pending)
        except QueueFull as full:
            exchange.set_result(_busy(full))

    def answer_to(self, exchange: Exchange, outcome: Answer, seconds: float) -> HttpAnswer:
        """Return what the client is told of an outcome."""
        pending, call = exchange.pending, exchange.call
        if isinstance(outcome, Crashed):
            outcome = INTERNAL
        if isinstance(outcome, m.Rejection) or call == "cancel" or is_noted(logging.DEBUG):
            note_command(call, pending, outcome, seconds)
        if isinstance(outcome, m.Rejection):
            return problem(outcome, pending.key)
        assert not isinstance(outcome, (WorkflowRow, MaintenanceRow, FlagRow, AuditRow, Trimmed))
        reply = reply_document(outcome)
        if isinstance(outcome, m.Renewal) and outcome.order == "continue":
            # A holder gets a token in place of one that will not last much longer.
            seconds = outcome.expires_in_seconds
            assert pending.key is not None  # what is renewed is a subjob's lease
            fresh = self._tokens.renewed(exchange.caller, pending.key, seconds)
            if fresh is not None:
                reply["token"] = fresh.text
                note_minted(fresh, exchange.caller, exchange.caller.scope)
        return document(reply)

    async def put(
        self,
        put: PutWorkflow | WindowChange | PutFlag | AuditEntry | Trim,
        caller: Caller,
        via: bytes | None,
        is_own_only: bool = False,
    ) -> Answer:
        """Change something wider than a subjob, and return what came of it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            self._store_writer.submit(
                PendingRequest(
                    None, put, caller.actor, future, _via(via), caller.owner, is_own_only
                )
            )
        except QueueFull as full:
            return _busy(full)
        outcome = await future
        return INTERNAL if isinstance(outcome, Crashed) else outcome


def key_of(parts: tuple[bytes, ...]) -> SubjobKey:
    """Return the subjob that a path names; raises InvalidField."""
    return _key(parts[0], parts[1])


@functools.lru_cache(maxsize=KEYS_KEPT)
def _key(workflow: bytes, subjob: bytes) -> SubjobKey:
    return SubjobKey(routes.decoded("workflow", workflow), routes.decoded("subjob", subjob))


def note_minted(minted: MintedToken, by: Caller, what: str) -> None:
    """Put into the log who got a token for what."""
    ends = rfc3339(minted.expires_at)
    note(
        logging.INFO, "token minted", token_id=minted.id, what=what, actor=by.actor, expires_at=ends
    )


def _busy(full: QueueFull) -> m.Rejection:
    return m.Rejection("overloaded", str(full), retry_after_seconds=RETRY_AFTER_SECONDS)


def _via(header: bytes | None) -> str | None:
    return None if header is None else header.decode("ascii", "replace")[:VIA_MAX_CHARS]
