"""The application: from a request to a command, and from a reply to an answer.

It decides nothing about leases. Commands, which are what the server spends its time on, are read
and queued by plain calls; everything else is a task of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from urllib.parse import unquote

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey, check_name
from htlease_server.api import routes
from htlease_server.api.health import why_not_ready
from htlease_server.api.maintenance_flags import MaintenanceFlags
from htlease_server.api.metrics import CONTENT_TYPE, Metrics
from htlease_server.api.queries import LIMIT_DEFAULT, Queries
from htlease_server.api.request_context import RequestContext
from htlease_server.api.schema.openapi import openapi_answer
from htlease_server.api.subjobs import INTERNAL, Commands, key_of
from htlease_server.api.tokens_keys_audit import TokensKeysAudit
from htlease_server.auth.authenticator import Authenticator
from htlease_server.auth.principal import NOBODY, Caller
from htlease_server.auth.rate_limit import RateLimiter
from htlease_server.auth.roles import OPEN_TO_ALL, Role
from htlease_server.counters import RATE_LIMIT, RequestCounters
from htlease_server.engine.commit.store_writer import RETRY_AFTER_SECONDS, StoreWriter
from htlease_server.engine.site.workflows import PutWorkflow
from htlease_server.http.messages import (
    Answer,
    Busy,
    Refusal,
    Replier,
    Request,
    Unadmitted,
    document,
    problem,
)
from htlease_server.http.server import HttpServer
from htlease_server.logs import note
from htlease_server.models.request_models import READERS, WORKFLOW_DECODER, decode
from htlease_server.store.base import StoreFailed

#: The call of a request whose path leads nowhere.
_NO_CALL = "none"
_HOME = b"""htlease: state leases for HTCondor jobs that restart.

/v1/workflows   workflows and their subjobs (needs a token)
/openapi.json   every call of this server
/healthz, /readyz, /metrics
"""


class App:
    """One server; `authenticator` says who calls, the writer answers."""

    def __init__(
        self,
        store_writer: StoreWriter,
        queries: Queries,
        authenticator: Authenticator,
        http_server: HttpServer,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        self._store_writer = store_writer
        self._queries = queries
        self._authenticator = authenticator
        self._counters = RequestCounters()
        hold_back = None if rate_limiter is None else self._hold_back
        self._commands = Commands(store_writer, authenticator.tokens, self._counters, hold_back)
        self._numbers = Metrics(store_writer, self._counters, http_server)
        self._rate_limiter = rate_limiter
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[RequestContext], Awaitable[Answer]]] = {
            "subjob": self._subjob,
            "history": self._history,
            "find": self._find,
            "workflows": self._workflows,
            "workflow": self._workflow,
            "put-workflow": self._put_workflow,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
            "openapi": self._openapi,
            "home": self._home,
            **TokensKeysAudit(authenticator, self._commands, queries).handlers(),
            **MaintenanceFlags(self._commands, queries).handlers(),
        }

    def __call__(self, request: Request, replier: Replier) -> None:
        """Answer a request, at once or when its time has come."""
        started = perf_counter()
        call = _NO_CALL
        try:
            path, _, query = request.target.partition(b"?")
            found = routes.find(path)
            if found is None:
                raise Refusal("not-found", f"{_shown(path)} is nothing that this server has")
            method = b"GET" if request.method == b"HEAD" else request.method
            route = found.methods.get(method)
            if route is None:
                raise _no_such_method(path, method, found.methods)
            call = route.name
            caller = NOBODY if call in OPEN_TO_ALL else self._admitted(request)
            # Renewals count for nobody: a token that sends too much must not lose its leases.
            if self._rate_limiter is not None and call != "renew" and caller is not NOBODY:
                self._hold_back(caller)
            if call in READERS:
                self._commands.submit(call, caller, found.parts, request, replier, started)
                return
            if call not in OPEN_TO_ALL and not caller.may(call):
                raise Refusal("forbidden", caller.why_no_call(call))
            self._start(call, RequestContext(request, query, caller, found.parts), replier, started)
        except Exception as problem_met:
            self._answer(call, self._answer_to(problem_met, request), replier, started)

    def _answer(self, call: str, answer: Answer, replier: Replier, started: float) -> None:
        self._counters.add(call, answer.code, perf_counter() - started)
        replier.answer(answer)

    def _answer_to(self, problem_met: Exception, request: Request) -> Answer:
        if isinstance(problem_met, Busy):
            self._counters.busy[problem_met.cause] += 1
        return _answer_to(problem_met, request)

    def _start(self, name: str, call: RequestContext, replier: Replier, started: float) -> None:
        async def run() -> None:
            try:
                answer = await self._handlers[name](call)
            except Exception as problem_met:
                answer = self._answer_to(problem_met, call.request)
            self._answer(name, answer, replier, started)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hold_back(self, caller: Caller) -> None:
        if self._rate_limiter is None or caller.role is Role.ADMIN:
            return
        wait_seconds = self._rate_limiter.wait_seconds(caller.actor)
        if wait_seconds:
            why = "this token sends more requests than --rate-limit allows"
            raise Busy(RATE_LIMIT, why, wait_seconds)

    def _admitted(self, request: Request) -> Caller:
        caller = self._authenticator.caller(request.headers.get(b"authorization"))
        if isinstance(caller, m.Rejection):
            raise Unadmitted(caller)
        return caller

    # ------------------------------------------------------------ changes

    async def _put_workflow(self, call: RequestContext) -> Answer:
        caller, name = call.caller, _workflow_name(call.parts)
        is_own_only = not caller.may_see(name)
        if is_own_only and not caller.may_own:
            raise Refusal("forbidden", caller.out_of_scope(name))
        raw = call.request.body
        body = decode(WORKFLOW_DECODER, raw)
        body.check_structure()
        if body.copy_of is not None:
            await self._check_scope(caller, body.copy_of)
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        put = PutWorkflow(name, body, body.plan_wanted(), digest)
        outcome = await self._commands.put(put, caller, call.via, is_own_only)
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        note(logging.INFO, "workflow changed", workflow=name, actor=caller.actor)
        return document(await self._queries.workflow(name, "", LIMIT_DEFAULT))

    # ------------------------------------------------------------ documents

    async def _is_in_scope(self, caller: Caller, workflow: str, subjob: str | None = None) -> bool:
        if caller.may_see(workflow, subjob):
            return True
        return caller.may_own and await self._queries.made_by(workflow) == caller.owner

    async def _check_scope(self, caller: Caller, workflow: str) -> None:
        if not await self._is_in_scope(caller, workflow):
            raise Refusal("forbidden", caller.out_of_scope(workflow))

    async def _visible_key(self, call: RequestContext) -> SubjobKey:
        caller, key = call.caller, key_of(call.parts)
        if not await self._is_in_scope(caller, key.workflow, key.subjob):
            raise Refusal("forbidden", caller.out_of_scope(key))
        return key

    async def _subjob(self, call: RequestContext) -> Answer:
        key = await self._visible_key(call)
        return _found(await self._queries.subjob(key), key)

    async def _history(self, call: RequestContext) -> Answer:
        key = await self._visible_key(call)
        after, limit = call.number("after", 0), call.limit
        return _found(await self._queries.history(key, after, limit), key)

    async def _find(self, call: RequestContext) -> Answer:
        id_text = call.query.get("id")
        if not id_text:
            raise InvalidField("id", "is missing; ask for /v1/subjobs?id=TEXT")
        found = [
            summary
            for summary in await self._queries.known_as(id_text)
            if await self._is_in_scope(call.caller, summary["workflow"], summary["subjob"])
        ]
        return document({"subjobs": found})

    async def _workflows(self, call: RequestContext) -> Answer:
        cursor = call.query.get("cursor", "")
        found = await self._queries.workflows(cursor, call.limit)
        caller = call.caller
        found["workflows"] = [
            one
            for one in found["workflows"]
            if caller.may_see(one["workflow"])
            or (caller.may_own and one["made_by"] == caller.owner)
        ]
        return document(found)

    async def _workflow(self, call: RequestContext) -> Answer:
        caller, name = call.caller, _workflow_name(call.parts)
        await self._check_scope(caller, name)
        cursor = call.query.get("cursor", "")
        found = await self._queries.workflow(name, cursor, call.limit)
        if found is None:
            raise Refusal("not-found", f"there is no workflow {name}")
        return document(found)

    # ------------------------------------------------------------ for monitors and people

    async def _healthz(self, call: RequestContext) -> Answer:
        return document({"status": "ok"})

    async def _readyz(self, call: RequestContext) -> Answer:
        why = why_not_ready(self._store_writer)
        if why is None:
            return document({"status": "ok"})
        return problem(m.Rejection("overloaded", why, retry_after_seconds=RETRY_AFTER_SECONDS))

    async def _metrics(self, call: RequestContext) -> Answer:
        try:
            totals = await self._queries.totals()
        except StoreFailed:  # what is known without it is wanted now more than ever
            totals = None
        return Answer(200, self._numbers.text(totals), CONTENT_TYPE)

    async def _openapi(self, call: RequestContext) -> Answer:
        return openapi_answer()

    async def _home(self, call: RequestContext) -> Answer:
        return Answer(200, _HOME, b"text/plain; charset=utf-8")


def _answer_to(problem_met: Exception, request: Request) -> Answer:
    """Return what is answered when handling a request has raised this."""
    if isinstance(problem_met, Refusal):
        return problem(problem_met.rejection, headers=problem_met.headers)
    if isinstance(problem_met, InvalidField):
        return problem(m.Rejection("invalid", str(problem_met), field=problem_met.field))
    if isinstance(problem_met, StoreFailed):  # a look-up; writes are refused by the writer
        why, seconds = str(problem_met), RETRY_AFTER_SECONDS
        return problem(m.Rejection("overloaded", why, retry_after_seconds=seconds))
    # The path holds names only; query, headers and body, where secrets are, stay out of the log.
    where = f"{request.method.decode()} {_shown(request.target.partition(b'?')[0])}"
    note(logging.ERROR, "answering a request failed", trace=True, request=where)
    return problem(INTERNAL)


def _no_such_method(path: bytes, method: bytes, methods: Iterable[bytes]) -> Refusal:
    allowed = b", ".join(methods)
    detail = f"{_shown(path)} takes {allowed.decode()}, not {method.decode()}"
    return Refusal("method-not-allowed", detail, (b"allow", allowed))


def _shown(path: bytes) -> str:
    return unquote(path.decode("ascii", "replace"))


def _workflow_name(parts: tuple[bytes, ...]) -> str:
    return check_name("workflow", routes.decoded("workflow", parts[0]))


def _found(found: Mapping[str, object] | None, key: SubjobKey) -> Answer:
    if found is None:
        return problem(m.Rejection("unknown-subjob", f"there is no subjob {key}"), key)
    return document(found)
