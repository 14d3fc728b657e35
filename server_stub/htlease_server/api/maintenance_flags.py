"""The calls about what is away, or will be: maintenance windows, and flags."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Awaitable, Callable, Mapping

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.attempt import check_name
from htlease_server.api import routes
from htlease_server.api.queries import Queries
from htlease_server.api.request_context import RequestContext
from htlease_server.api.subjobs import Commands
from htlease_server.engine.site.flags import PutFlag, flag_document
from htlease_server.engine.site.maintenance import (
    WINDOW_MAX_SECONDS,
    Announce,
    PutMaintenance,
    WindowChange,
    Withdraw,
    whole_seconds,
)
from htlease_server.http.messages import Answer, document, problem
from htlease_server.logs import note
from htlease_server.models.request_models import (
    ANNOUNCE_DECODER,
    FLAG_DECODER,
    MAINTENANCE_DECODER,
    WITHDRAW_DECODER,
    decode,
)
from htlease_server.store.base import FlagRow

_UTC = datetime.timezone.utc
#: The instants that have a date; an offset from UTC can lead beyond them.
_FIRST = datetime.datetime.min.replace(tzinfo=_UTC).timestamp()
_LAST = datetime.datetime.max.replace(tzinfo=_UTC).timestamp() - 1


class MaintenanceFlags:
    """Shows and changes maintenance windows and flags."""

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    def handlers(self) -> Mapping[str, Callable[[RequestContext], Awaitable[Answer]]]:
        """Return what answers each of the calls."""
        return {
            "maintenance": self._maintenance,
            "put-maintenance": self._put_maintenance,
            "announce": self._announce,
            "withdraw": self._withdraw,
            "flags": self._flags,
            "put-flag": self._put_flag,
        }

    async def _maintenance(self, call: RequestContext) -> Answer:
        return document(await self._queries.maintenance())

    async def _put_maintenance(self, call: RequestContext) -> Answer:
        body = decode(MAINTENANCE_DECODER, call.request.body)
        if not 0 <= body.ends_in_seconds <= WINDOW_MAX_SECONDS:
            raise InvalidField(
                "ends_in_seconds",
                f"{body.ends_in_seconds:.12g} is not 0 to {WINDOW_MAX_SECONDS:.12g}",
            )
        done = "maintenance begun or prolonged" if body.ends_in_seconds else "maintenance ended"
        return await self._change(call, PutMaintenance(body.ends_in_seconds, body.reason), done)

    async def _announce(self, call: RequestContext) -> Answer:
        body = decode(ANNOUNCE_DECODER, call.request.body)
        replaced = None if body.instead_of is None else _instant(body.instead_of)
        announce = Announce(
            _instant(body.starts_at),
            _instant(body.until_at),
            body.reason,
            replaced,
        )
        return await self._change(call, announce, "maintenance announced")

    async def _withdraw(self, call: RequestContext) -> Answer:
        body = decode(WITHDRAW_DECODER, call.request.body)
        return await self._change(call, Withdraw(_instant(body.starts_at)), "maintenance withdrawn")

    async def _change(self, call: RequestContext, change: WindowChange, done: str) -> Answer:
        outcome = await self._commands.put(change, call.caller, call.via)
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        note(logging.INFO, done, actor=call.caller.actor, **change.audit_entry().data)
        return await self._maintenance(call)

    async def _flags(self, call: RequestContext) -> Answer:
        workflow = call.query.get("workflow")
        if workflow is not None:
            check_name("workflow", workflow)
        return document(await self._queries.flags(workflow))

    async def _put_flag(self, call: RequestContext) -> Answer:
        name = check_name("flag", routes.decoded("flag", call.parts[0]))
        body = decode(FLAG_DECODER, call.request.body)
        put = PutFlag(name, body.is_up, body.reason)
        outcome = await self._commands.put(put, call.caller, call.via)
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        assert isinstance(outcome, FlagRow)
        word = "flag raised" if body.is_up else "flag lowered"
        note(logging.INFO, word, flag=name, why=body.reason, actor=call.caller.actor)
        return document(flag_document(outcome))


def _instant(moment: datetime.datetime) -> float:
    return whole_seconds(min(max(moment.timestamp(), _FIRST), _LAST))
