"""The ASGI application: from a request to a command, and from a reply to an answer.

It decides nothing about leases. Plain ASGI callables, since writes are what the server spends its
time on: routing, wrappers and middleware of a framework cost as much as a lease rule.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from htlease import messages as m
from htlease.attempt import SubjobKey, check_name
from htlease.errors import InvalidField
from htlease.protocol import reply_document, rfc3339
from htlease_server import routes
from htlease_server.auth import Gate
from htlease_server.bodies import (
    MAINTENANCE_DECODER,
    READERS,
    TOKEN_DECODER,
    WORKFLOW_DECODER,
    decode,
)
from htlease_server.caller import NOBODY, Caller
from htlease_server.health import why_not_ready
from htlease_server.journal import note_command
from htlease_server.ledger import RETRY_AFTER_SECONDS, Ledger
from htlease_server.logs import is_noted, note
from htlease_server.maintenance import WINDOW_MAX_SECONDS, PutMaintenance
from htlease_server.metrics import CONTENT_TYPE, Metrics
from htlease_server.openapi import openapi_document
from htlease_server.reading import LIMIT_DEFAULT, LIMIT_MAX, Reading
from htlease_server.roles import OPEN_TO_ALL
from htlease_server.store import MaintenanceRow, WorkflowRow
from htlease_server.tally import RequestTally
from htlease_server.tokens import Minted, why_not_mint
from htlease_server.turn import Answer as LedgerAnswer
from htlease_server.turn import Crashed, QueueFull, Waiting
from htlease_server.wire import (
    Answer,
    ClientGone,
    Receive,
    Refusal,
    Scope,
    Send,
    document,
    problem,
    read_body,
    send_answer,
)
from htlease_server.workflow import PutWorkflow

_INTERNAL = m.Rejection("internal", "the server made a mistake; its log says more")
VIA_MAX_CHARS = 200
#: The call of a request whose path leads nowhere.
_NO_CALL = "none"
_HOME = b"""htlease: state leases for HTCondor jobs that restart.

/v1/workflows   workflows and their subjobs (needs a token)
/openapi.json   every call of this server
/healthz, /readyz, /metrics
"""


class Request(NamedTuple):
    """What a handler of a read or of an administrative call gets."""

    scope: Scope
    receive: Receive
    #: Admitted, and of a role that may make this call.
    caller: Caller
    parts: tuple[bytes, ...]


class App:
    """One server; `gate` says who calls, the ledger answers."""

    def __init__(self, ledger: Ledger, reading: Reading, gate: Gate) -> None:
        self._ledger = ledger
        self._reading = reading
        self._gate = gate
        self._tally = RequestTally()
        self._numbers = Metrics(ledger, self._tally)
        self._handlers: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "subjob": self._subjob,
            "history": self._history,
            "find": self._find,
            "workflows": self._workflows,
            "workflow": self._workflow,
            "put-workflow": self._put_workflow,
            "mint": self._mint,
            "maintenance": self._maintenance,
            "put-maintenance": self._put_maintenance,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
            "openapi": self._openapi,
            "home": self._home,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"htlease speaks HTTP only, not {scope['type']}")
        started = perf_counter()
        try:
            answer = await self._answer(scope, receive)
        except Refusal as refusal:
            answer = problem(refusal.rejection, headers=refusal.headers)
        except InvalidField as bad:
            answer = problem(m.Rejection("invalid", str(bad), field=bad.field))
        except ClientGone:
            return
        except Exception:
            # The path holds names only; headers and body, where secrets are, stay out of the log.
            where = f"{scope['method']} {scope['path']}"
            note(logging.ERROR, "answering a request failed", trace=True, request=where)
            answer = problem(_INTERNAL)
        seconds = perf_counter() - started
        self._tally.add(scope.get("htlease.call", _NO_CALL), answer.code, seconds)
        await send_answer(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        found = routes.find(scope["raw_path"])
        if found is None:
            raise Refusal("not-found", f"{scope['path']} is nothing that this server has")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = found.methods.get(method)
        if route is None:
            allowed = ", ".join(found.methods)
            raise Refusal(
                "method-not-allowed",
                f"{scope['path']} takes {allowed}, not {method}",
                (b"allow", allowed.encode()),
            )
        scope["htlease.call"] = route.name
        if route.name in OPEN_TO_ALL:
            caller = NOBODY
        else:
            caller = self._admitted(scope)
            if route.name in READERS:
                return await self._write(route.name, caller, found.parts, scope, receive)
            if not caller.may(route.name):
                raise Refusal("forbidden", caller.why_no_call(route.name))
        return await self._handlers[route.name](Request(scope, receive, caller, found.parts))

    def _admitted(self, scope: Scope) -> Caller:
        caller = self._gate.caller(_header(scope, b"authorization"))
        if isinstance(caller, m.Rejection):
            raise Refusal(
                caller.code, caller.detail, (b"www-authenticate", b'Bearer realm="htlease"')
            )
        return caller

    # ------------------------------------------------------------ commands

    async def _write(
        self, call: str, caller: Caller, parts: tuple[bytes, ...], scope: Scope, receive: Receive
    ) -> Answer:
        key = _key(parts)
        if not caller.may_see(key.workflow, key.subjob):
            raise Refusal("forbidden", caller.out_of_reach(key))
        phase = routes.decoded("phase", parts[2]) if len(parts) == 3 else None
        sent = READERS[call].read(await read_body(scope, receive), phase)
        forbidden = caller.why_not(key, sent.command)
        if forbidden:
            raise Refusal("forbidden", forbidden)
        future: asyncio.Future[LedgerAnswer] = asyncio.get_running_loop().create_future()
        via = _via(_header(scope, b"via"))
        waiting, started = Waiting(key, sent, caller.actor, future, via), perf_counter()
        outcome = await self._submit(waiting)
        if isinstance(outcome, m.Rejection) or call == "cancel" or is_noted(logging.DEBUG):
            note_command(call, waiting, sent, outcome, perf_counter() - started)
        if isinstance(outcome, m.Rejection):
            return problem(outcome, key)
        assert not isinstance(outcome, (WorkflowRow, MaintenanceRow))
        answer = reply_document(outcome)
        if isinstance(outcome, m.Renewal) and outcome.order == "continue":
            self._add_fresh_token(answer, caller, outcome.expires_in_seconds)
        return document(answer)

    def _add_fresh_token(
        self, answer: dict[str, Any], caller: Caller, lease_seconds: float
    ) -> None:
        """Give a holder a token in place of one that will not last much longer."""
        fresh = self._gate.tokens.renewed(caller, lease_seconds)
        if fresh is not None:
            answer["token"] = fresh.text
            _note_minted(fresh, caller, caller.scope)

    async def _submit(
        self, waiting: Waiting
    ) -> m.Reply | m.Rejection | WorkflowRow | MaintenanceRow:
        try:
            self._ledger.submit(waiting)
        except QueueFull as full:
            return m.Rejection("overloaded", str(full), retry_after_seconds=RETRY_AFTER_SECONDS)
        outcome = await waiting.future
        return _INTERNAL if isinstance(outcome, Crashed) else outcome

    async def _put_workflow(self, request: Request) -> Answer:
        caller, name = request.caller, _workflow_name(request.parts)
        if not caller.may_see(name):
            raise Refusal("forbidden", caller.out_of_reach(name))
        raw = await read_body(request.scope, request.receive)
        body = decode(WORKFLOW_DECODER, raw)
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        put = PutWorkflow(name, body, body.plan_wanted(), digest)
        future: asyncio.Future[LedgerAnswer] = asyncio.get_running_loop().create_future()
        outcome = await self._submit(Waiting(None, put, caller.actor, future))
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        note(logging.INFO, "workflow changed", workflow=name, actor=caller.actor)
        return document(await self._reading.workflow(name, "", LIMIT_DEFAULT))

    async def _mint(self, request: Request) -> Answer:
        caller = request.caller
        wanted = decode(TOKEN_DECODER, await read_body(request.scope, request.receive)).wanted()
        forbidden = why_not_mint(caller, wanted)
        if forbidden:
            raise Refusal("forbidden", forbidden)
        minted = self._gate.tokens.mint(wanted, caller)
        _note_minted(minted, caller, wanted.about)
        return document(
            {"token": minted.text, "id": minted.id, "expires_at": rfc3339(minted.expires_at)}
        )

    async def _put_maintenance(self, request: Request) -> Answer:
        body = decode(MAINTENANCE_DECODER, await read_body(request.scope, request.receive))
        if not 0 <= body.ends_in_seconds <= WINDOW_MAX_SECONDS:
            raise InvalidField(
                "ends_in_seconds", f"{body.ends_in_seconds:g} is not 0 to {WINDOW_MAX_SECONDS:g}"
            )
        put = PutMaintenance(body.ends_in_seconds, body.reason)
        future: asyncio.Future[LedgerAnswer] = asyncio.get_running_loop().create_future()
        outcome = await self._submit(Waiting(None, put, request.caller.actor, future))
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        note(
            logging.INFO,
            "maintenance announced" if body.ends_in_seconds else "maintenance ended",
            ends_in_seconds=body.ends_in_seconds,
            actor=request.caller.actor,
        )
        return await self._maintenance(request)

    # ------------------------------------------------------------ documents

    async def _maintenance(self, request: Request) -> Answer:
        return document(await self._reading.maintenance())

    async def _subjob(self, request: Request) -> Answer:
        key = _visible_key(request)
        return _found(await self._reading.subjob(key), key)

    async def _history(self, request: Request) -> Answer:
        key = _visible_key(request)
        after, limit = _number(request.scope, "after", 0), _limit(request.scope)
        return _found(await self._reading.history(key, after, limit), key)

    async def _find(self, request: Request) -> Answer:
        id_text = _query(request.scope).get("id")
        if not id_text:
            raise InvalidField("id", "is missing; ask for /v1/subjobs?id=TEXT")
        found = [
            summary
            for summary in await self._reading.known_as(id_text)
            if request.caller.may_see(summary["workflow"], summary["subjob"])
        ]
        return document({"subjobs": found})

    async def _workflows(self, request: Request) -> Answer:
        cursor = _query(request.scope).get("cursor", "")
        found = await self._reading.workflows(cursor, _limit(request.scope))
        may_see = request.caller.may_see
        found["workflows"] = [one for one in found["workflows"] if may_see(one["workflow"])]
        return document(found)

    async def _workflow(self, request: Request) -> Answer:
        caller, name = request.caller, _workflow_name(request.parts)
        if not caller.may_see(name):
            raise Refusal("forbidden", caller.out_of_reach(name))
        cursor = _query(request.scope).get("cursor", "")
        found = await self._reading.workflow(name, cursor, _limit(request.scope))
        if found is None:
            raise Refusal("not-found", f"there is no workflow {name}")
        return document(found)

    # ------------------------------------------------------------ for monitors and people

    async def _healthz(self, request: Request) -> Answer:
        return document({"status": "ok"})

    async def _readyz(self, request: Request) -> Answer:
        why = why_not_ready(self._ledger)
        if why is None:
            return document({"status": "ok"})
        return problem(m.Rejection("overloaded", why, retry_after_seconds=RETRY_AFTER_SECONDS))

    async def _metrics(self, request: Request) -> Answer:
        return Answer(200, self._numbers.text(), CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Answer:
        return document(openapi_document())

    async def _home(self, request: Request) -> Answer:
        return Answer(200, _HOME, b"text/plain; charset=utf-8")


def _note_minted(minted: Minted, by: Caller, what: str) -> None:
    ends = rfc3339(minted.expires_at)
    note(
        logging.INFO, "token minted", token_id=minted.id, what=what, actor=by.actor, expires_at=ends
    )


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def _via(header: bytes | None) -> str | None:
    return None if header is None else header.decode("ascii", "replace")[:VIA_MAX_CHARS]


def _key(parts: tuple[bytes, ...]) -> SubjobKey:
    return SubjobKey(routes.decoded("workflow", parts[0]), routes.decoded("subjob", parts[1]))


def _visible_key(request: Request) -> SubjobKey:
    caller, key = request.caller, _key(request.parts)
    if not caller.may_see(key.workflow, key.subjob):
        raise Refusal("forbidden", caller.out_of_reach(key))
    return key


def _workflow_name(parts: tuple[bytes, ...]) -> str:
    return check_name("workflow", routes.decoded("workflow", parts[0]))


def _found(found: dict[str, object] | None, key: SubjobKey) -> Answer:
    if found is None:
        return problem(m.Rejection("unknown-subjob", f"there is no subjob {key}"), key)
    return document(found)


def _query(scope: Scope) -> dict[str, str]:
    """Return the query's parameters; raises InvalidField when it is not UTF-8."""
    try:
        pairs = parse_qs(scope["query_string"].decode("ascii"), errors="strict", max_num_fields=20)
    except ValueError:
        raise InvalidField("query", "is not percent-encoded UTF-8 of at most 20 fields") from None
    return {name: values[-1] for name, values in pairs.items()}


def _number(scope: Scope, name: str, default: int) -> int:
    text = _query(scope).get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidField(name, f"{text!r} is not a count")
    return int(text)


def _limit(scope: Scope) -> int:
    return max(1, min(_number(scope, "limit", LIMIT_DEFAULT), LIMIT_MAX))
