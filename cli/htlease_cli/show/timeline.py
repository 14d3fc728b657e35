"""The history of a subjob as rows for people: when, attempt, host, phase, fence, what, why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from htlease.condor.hold_remove_reasons import reason_of
from htlease_cli.show.attempts import Attempt, Event, ending_text, read_attempts
from htlease_cli.tables import Table, moment_text, print_table

COLUMNS = ("WHEN (UTC)", "ATTEMPT", "HOST", "PHASE", "FENCE", "WHAT HAPPENED", "WHY")


def print_timeline(events: Sequence[Event], stream: TextIO | None = None) -> None:
    """Print a history (the `events` of the wire, oldest first) as a table."""
    print_table(timeline(events), stream)


def timeline(events: Sequence[Event]) -> Table:
    """Return the rows of a history."""
    return Table(COLUMNS, [row for _, row in told(events)])


def told(events: Sequence[Event]) -> Iterator[tuple[Event, tuple[str, ...]]]:
    """Yield each event that a person has use for with its row.

    Details saved again and again in one phase share a row, the one of the last time.
    """
    attempts = read_attempts(events)
    by_fence = {attempt.fence: attempt for attempt in attempts if attempt.grant}
    by_id = {attempt.attempt_id: attempt for attempt in attempts}
    phase_of_fence: dict[int, str] = {}
    for event, times in _details_gathered(events):
        tell = _TELLERS.get(event["event"])
        if tell is None:
            continue
        fence = event.get("fence")
        attempt = (
            by_fence.get(fence) if fence is not None else by_id.get(event.get("attempt_id", ""))
        )
        if event["event"] == "phase-entered":
            phase_of_fence[event["fence"]] = event["phase"]
        phase = event.get("phase") or (phase_of_fence.get(fence, "") if fence is not None else "")
        what, why = tell(event, attempt)
        if times > 1:
            what += f", {times} times"
        if event.get("via"):
            what += f" (by way of {event['via']})"
        yield (
            event,
            (
                moment_text(event.get("at")),
                _short_name(attempt),
                (attempt.host if attempt else None) or "",
                phase,
                str(fence) if fence else "",
                what,
                why,
            ),
        )


def _details_gathered(events: Sequence[Event]) -> Iterator[tuple[Event, int]]:
    """Yield each event with 1, and for a run of saved details the last with its length."""
    saved: tuple[Event, int] | None = None
    for event in events:
        if event["event"] == "details-saved" and saved and saved[0]["fence"] == event["fence"]:
            saved = event, saved[1] + 1
            continue
        if saved:
            yield saved
            saved = None
        if event["event"] == "details-saved":
            saved = event, 1
        else:
            yield event, 1
    if saved:
        yield saved


def _short_name(attempt: Attempt | None) -> str:
    if attempt is None:
        return ""
    if attempt.kind != "job":
        return attempt.kind
    return str(attempt.number) if attempt.number else attempt.attempt_id.rpartition("@")[2]


def grant_reason(event: Event, before: Attempt | None) -> str:
    """Say why a lease was granted, in words that follow `because`."""
    other = before.name if before else "the attempt before"
    is_job = before is not None and before.kind == "job"
    payload = f"the payload of {other}" if is_job else "the payload"
    reasons = {
        "first": "nobody had held the lease before",
        "abandoned": f"{other} had given the lease up",
        "exited": f"{payload} had ended and was not committed",
        "expired": f"the lease of {other} had run out",
        "same-slot": f"it runs in the very slot of {other}, whose starter is therefore over",
        "immediate": f"the plan lets a newer attempt take over at once; {other} is fenced off",
        "failed": "it is a new submission of a subjob that had failed",
        "waiting": "nobody held the lease of the subjob, which waited for an attempt",
    }
    why: str = event["why"]
    return reasons.get(why, why)


def _enrolled(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    name = event.get("global_job_id") or "a submission still to come"
    if event.get("reopened"):
        return "opened again", f"{name} is a new submission (it was {event['reopened']})"
    return "enrolled", f"{name} has epoch {event['epoch']}"


def _seen(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return "submission seen", f"{event['global_job_id']} has epoch {event['epoch']}"


def _acquired(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    before = attempt.before if attempt else None
    is_reclaimed = before is not None and event["kind"] == "job"
    what = "reclaimed the lease" if is_reclaimed else "got the lease"
    return what, grant_reason(event, before)


def _saved(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return f"saved details ({event['details_bytes']} bytes)", ""


def _replanned(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return "brought its plan", ", ".join(phase["name"] for phase in event["plan"]["phases"])


def _recalled(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return "lease recalled", f"{event['by_attempt_id']} is newer and waits"


def _refused(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    what = "has to wait" if event["code"] == "lease-still-live" else f"refused: {event['code']}"
    return what, event["why"]


def _write_refused(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    why = "this nonce was never granted that fence"
    if event["code"] == "superseded-attempt":
        follower = attempt.next if attempt else None
        why = f"{follower.name} took over" if follower else "its lease had ended"
    return f"late {event['call']} refused", f"{event['code']}: {why}"


def _entered(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    began = moment_text(event.get("client_at"))
    return "entered", f"begun without the server, at {began}" if event.get("is_underway") else ""


def _completed(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    artifacts = event.get("artifacts") or {}
    return "completed", ", ".join(f"{name}={value}" for name, value in artifacts.items())


def _failed(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    code = "" if event.get("exit_code") is None else f" with exit code {event['exit_code']}"
    return f"failed{code}", event.get("reason") or ""


def _exited(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    why = event.get("reason") or ""
    if attempt and attempt.end and attempt.end["event"] == "lease-abandoned":
        return "its end was explained", why
    return f"payload ended, {ending_text(event)}", why


def _abandoned(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return "gave the lease up", event.get("reason") or ""


_WHO = {
    "user": "its user",
    "htlease": "htlease",
    "job-policy": "its own policy",
    "site-policy": "the site's policy",
    "htcondor": "HTCondor",
    "dagman": "DAGMan",
}


#: Codes that say no more than who did it.
_SAID_BY_WHO = ("removed", "removed-by-user", "removed-by-policy", "removed-by-own-policy")


def who_acted(event: Event) -> str:
    """Say on whose behalf a job was held, released or removed, in words that follow `by`."""
    by: str = event.get("by") or "somebody"
    return _WHO.get(by, by)


def hold_text(hold: Event) -> str:
    """Say why a job is held, with HTCondor's codes."""
    codes = ".".join(str(hold[name]) for name in ("code", "subcode") if hold.get(name) is not None)
    reason = hold.get("reason") or "no reason given"
    named = reason_of(reason).code
    known = [f"hold code {codes}"] if codes else []
    known += [named] if named not in _SAID_BY_WHO else []
    return f"{reason} ({', '.join(known)})" if known else reason


def _held(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return f"job held by {who_acted(event)}", hold_text(event)


def _released(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return f"job released by {who_acted(event)}", event.get("reason") or ""


def _removed(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return f"job removed by {who_acted(event)}", event.get("reason") or ""


def _ended(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return "job ended, its lease not", event.get("reason") or ""


def closing_reason(event: Event) -> str:
    """Say what closed a subjob."""
    by = {
        "last-phase": "its last phase is once and complete",
        "committed": "the outputs came back",
        "settled": "it was settled on the access point",
        "walltime": "its plan says so of a job that has had its time",
        "cancelled": "it was cancelled",
        "state": "a final state was entered",
        "all-back": "its payload has ended well and HTCondor has nothing to bring back",
        "nothing-left": "every phase was complete already",
    }
    word: str = event["by"]
    reason = by.get(word, word)
    return f"{reason}: {event['reason']}" if event.get("reason") else reason


def _closed(event: Event, attempt: Attempt | None) -> tuple[str, str]:
    return f"closed as {event['outcome']}", closing_reason(event)


_TELLERS: dict[str, Callable[[Event, Attempt | None], tuple[str, str]]] = {
    "submission-enrolled": _enrolled,
    "submission-seen": _seen,
    "lease-acquired": _acquired,
    "details-saved": _saved,
    "plan-changed": _replanned,
    "lease-recalled": _recalled,
    "attempt-refused": _refused,
    "write-refused": _write_refused,
    "phase-entered": _entered,
    "phase-completed": _completed,
    "phase-failed": _failed,
    "attempt-exited": _exited,
    "lease-abandoned": _abandoned,
    "job-held": _held,
    "job-released": _released,
    "job-removed": _removed,
    "job-ended": _ended,
    "subjob-closed": _closed,
}
