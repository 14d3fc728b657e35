"""`python -m tests.checker.broken RULE …`: the server with one rule broken, for the checker to find.

The rules are replaced before the server is imported, so that nothing in the product knows of it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

from htlease.rules import acquire, messages, plan
from htlease.rules import state as subjob
from htlease.rules.messages import (
    Accepted,
    Acquire,
    Command,
    Decision,
    FencedCommand,
    LeaseAcquired,
    Renew,
    Renewal,
)
from htlease.rules.state import SubjobState, replace

_decide = acquire.decide
_is_done = plan.is_done


def _put(owner: Any, name: str, value: Any) -> None:
    mock.patch.object(owner, name, value).start()


def _deciding(rule: Callable[[SubjobState, Command, float], Decision]) -> Callable[[], None]:
    return lambda: _put(acquire, "decide", rule)


def _as_holder(state: SubjobState, command: FencedCommand) -> SubjobState:
    """Return a state in which whoever writes is the holder."""
    assert state.holder is not None
    digest = messages.nonce_digest(command.nonce)
    holder = dataclasses.replace(state.holder, fence=command.fence, nonce_digest=digest)
    return replace(state, holder=holder)


def skip_the_fence_check(state: SubjobState, command: Command, now: float) -> Decision:
    """Whoever was granted any fence may write under it for ever."""
    if isinstance(command, FencedCommand) and state.holder is not None:
        pair = (command.fence, messages.nonce_digest(command.nonce))
        if pair in state.grants:
            return _decide(_as_holder(state, command), command, now)
    return _decide(state, command, now)


def ignore_the_nonce(state: SubjobState, command: Command, now: float) -> Decision:
    """Whoever knows the fence may write."""
    if isinstance(command, FencedCommand) and state.holder is not None:
        if command.fence == state.fence:
            return _decide(_as_holder(state, command), command, now)
    return _decide(state, command, now)


def repeat_a_fence(state: SubjobState, command: Command, now: float) -> Decision:
    """A new holder gets the fence of the one before."""
    if isinstance(command, Acquire) and state.fence > 0:
        state = replace(state, fence=state.fence - 1)
    return _decide(state, command, now)


def grant_while_live(state: SubjobState, command: Command, now: float) -> Decision:
    """A live lease keeps nobody out."""
    if isinstance(command, Acquire):
        state = replace(state, deadline_at=min(state.deadline_at, now))
    return _decide(state, command, now)


def let_older_attempts_in(state: SubjobState, command: Command, now: float) -> Decision:
    """The evidence orders nobody."""
    if isinstance(command, Acquire):
        state = replace(state, last_evidence={})
    return _decide(state, command, now)


def revive_what_was_taken(state: SubjobState, command: Command, now: float) -> Decision:
    """A holder whose lease ran out renews it although another has it now."""
    if isinstance(command, Renew) and command.details is None and state.holder is not None:
        pair = (command.fence, messages.nonce_digest(command.nonce))
        if pair in state.grants and command.fence < state.fence:
            return Accepted((), Renewal(state.holder.ttl_seconds, "continue"))
    return _decide(state, command, now)


def shorten_leases(state: SubjobState, command: Command, now: float) -> Decision:
    """The server promises a lease for longer than it keeps it."""
    decision = _decide(state, command, now)
    if isinstance(decision, Accepted) and isinstance(command, Acquire):
        events = tuple(
            dataclasses.replace(event, deadline_at=now + 0.2)
            if isinstance(event, LeaseAcquired)
            else event
            for event in decision.events
        )
        return Accepted(events, decision.reply)
    return decision


def forget_request_ids() -> None:
    """A request that comes again is done again."""
    _put(subjob, "REQUESTS_KEPT", 0)


def do_once_phases_twice() -> None:
    """A phase that is to be done once is done by every attempt."""

    def is_done(spec: plan.PhaseSpec, record: Any, fence: int | None) -> bool:
        return _is_done(plan.PhaseSpec(spec.name, "redo"), record, fence)

    from htlease.rules import fenced_writes

    _put(plan, "is_done", is_done)
    _put(fenced_writes, "is_done", is_done)


def end_leases_at_a_restart() -> None:
    """Whoever held a lease when the server went down has lost it."""
    _put(
        subjob,
        "extended_deadline",
        lambda deadline_at, ttl_seconds, last_alive_at, started_at: min(deadline_at, started_at),
    )


def answer_before_it_is_durable() -> None:
    """An answer is sent a third of a second before its write reaches the disk."""
    from htlease_server.store.base import WriteSet
    from htlease_server.store.sqlite.sqlite_store import SqliteStore
    from htlease_server.store.sqlite.writer_process import CommitResult, WriterProcess

    put, hear = WriterProcess.put, WriterProcess.wait

    def put_later(writer: Any, write_set: WriteSet) -> None:
        if writer._loop.is_running():
            writer._loop.call_later(0.3, put, writer, write_set)
            writer._loop.call_soon(writer._on_written, CommitResult(None, 0.0))

    # Or the next start would find out by itself.
    _put(SqliteStore, "stamp", lambda store, run: None)
    _put(WriterProcess, "put", put_later)
    _put(WriterProcess, "_hear", hear)
    _put(WriterProcess, "wait", lambda writer: CommitResult(None, 0.0))


def commit_without_the_disk() -> None:
    """PostgreSQL answers before a commit is on its disk."""
    from htlease_server.store.postgresql import postgres_store as store
    from htlease_server.store.postgresql.server_runs import begin_run

    def begin_badly(connection: Any, clock: str) -> None:
        begin_run(connection, clock)
        connection.execute("SET synchronous_commit = off")

    _put(store, "begin_run", begin_badly)


#: Name -> what breaks it.
RULES: dict[str, Callable[[], None]] = {
    **{
        rule.__name__: _deciding(rule)
        for rule in (
            skip_the_fence_check,
            ignore_the_nonce,
            repeat_a_fence,
            grant_while_live,
            let_older_attempts_in,
            revive_what_was_taken,
            shorten_leases,
        )
    },
    **{
        rule.__name__: rule
        for rule in (
            forget_request_ids,
            do_once_phases_twice,
            end_leases_at_a_restart,
            answer_before_it_is_durable,
            commit_without_the_disk,
        )
    },
}
#: Those that only a server on PostgreSQL can break, and those that only one on SQLite can.
OF_POSTGRESQL = {"commit_without_the_disk"}
OF_SQLITE = {"answer_before_it_is_durable"}


def main() -> int:
    RULES[sys.argv.pop(1)]()
    from htlease_server.__main__ import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
