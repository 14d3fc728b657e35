"""How much is kept of one subjob; what would only add to it beyond that is refused.

Whoever holds the lease can always keep it and end with it, whatever the record has come to.
"""

from __future__ import annotations

from htlease.rules import messages as m
from htlease.rules.state import SubjobState

#: Submissions known under one key, so also the times that it was enrolled under an ID.
SUBMISSIONS_MAX = 1_000
#: Events in the history of one subjob; ten a start are many.
EVENTS_MAX = 100_000
#: What is read and written with each change: details and artifacts of phases above all.
STATE_MAX_BYTES = 1024 * 1024

_ENDING = (m.Exited, m.Abandon, m.Ended, m.Commit, m.Settle, m.Cancel)


def over_quota(
    state: SubjobState, command: m.Command, events: int, state_bytes: int
) -> m.Rejection | None:
    """Return why a command would have too much kept, or None.

    `events` and `state_bytes` are what the store has of the subjob already.
    """
    if _keeps_or_ends(state, command):
        return None
    if isinstance(command, (m.Enroll, m.Acquire)) and len(state.submissions) >= SUBMISSIONS_MAX:
        if command.global_job_id is not None and command.global_job_id not in state.submissions:
            return _full(f"has had {SUBMISSIONS_MAX} submissions")
    if events >= EVENTS_MAX:
        return _full(f"has {EVENTS_MAX} events in its history")
    if state_bytes >= STATE_MAX_BYTES and not isinstance(command, m.Acquire):
        return _full(f"keeps {STATE_MAX_BYTES} bytes of details, artifacts and reasons")
    return None


def _keeps_or_ends(state: SubjobState, command: m.Command) -> bool:
    """Tell whether a command only keeps the lease of its holder, or ends something."""
    if isinstance(command, m.Renew):
        return command.details is None
    if isinstance(command, m.Acquire):
        holder = state.holder
        return holder is not None and holder.nonce_digest == m.nonce_digest(command.nonce)
    return isinstance(command, _ENDING)


def _full(what: str) -> m.Rejection:
    return m.Rejection("quota-exceeded", f"the subjob {what}; go on under another key")
