"""Why an attempt got the lease, waited for it, or lost it: sentences from the history, pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from htlease.rules.plan import is_wall_time
from htlease_cli.show.attempts import Attempt, Event, ending_text, read_attempts
from htlease_cli.show.timeline import closing_reason, grant_reason, hold_text, who_acted
from htlease_cli.tables import moment_text

_NONE_YET = "No attempt has asked for the lease yet."
_IF_IT_NEVER_RUNS = (
    "A job that leaves the queue without a start (noop_job, or removed while idle) never does: "
    "condor_history says so, and `htlease settle KEY --outcome complete` or `cancelled` puts it "
    "on record."
)


@dataclass(frozen=True)
class Story:
    """What became of one attempt."""

    #: Its ID; None for a subjob without attempts.
    attempt_id: str | None
    sentences: tuple[str, ...]


def explain(events: Sequence[Event], which: str | None = None) -> list[Story]:
    """Return the stories of the attempts in the order in which they first asked for the lease.

    `which` is an attempt number, an attempt ID or a fence written `fence:7`; without it, all. An
    empty list means that the history has no such attempt.
    """
    attempts = read_attempts(events)
    if not attempts and which is None:
        return [Story(None, (_NONE_YET, *(_closings(events) or [_IF_IT_NEVER_RUNS])))]
    return [
        Story(attempt.attempt_id, tuple(_story(attempt)))
        for attempt in attempts
        if which is None or _is_called(attempt, which)
    ]


def _closings(events: Sequence[Event]) -> list[str]:
    return [
        f"{_at(event)} the subjob was closed as {event['outcome']}: {closing_reason(event)}."
        for event in events
        if event["event"] == "subjob-closed"
    ]


def _is_called(attempt: Attempt, which: str) -> bool:
    if which.startswith("fence:"):
        return str(attempt.fence) == which.removeprefix("fence:")
    return which in (attempt.attempt_id, str(attempt.number) if attempt.number else None)


def _story(attempt: Attempt) -> list[str]:
    told = [(refusal, _refusal(attempt, refusal)) for refusal in attempt.refusals]
    if attempt.grant is None:
        sentences = [sentence for _, sentence in told]
        if attempt.refusals[-1]["code"] == "lease-still-live":
            sentences.append(f"{_begin(attempt.name)} has not had the lease since.")
        return sentences
    told.append((attempt.grant, _grant(attempt, attempt.grant)))
    told += [(event, _work(event)) for event in attempt.phases]
    told += [(recall, _recall(recall)) for recall in attempt.recalls]
    told += [(event, _observed(event)) for event in attempt.observed]
    if attempt.end:
        told.append((attempt.end, _end(attempt, attempt.end)))
    if attempt.late_writes:
        told.append((attempt.late_writes[0], _late(attempt)))
    sentences = [sentence for _, sentence in sorted(told, key=lambda pair: pair[0]["seq"])]
    if attempt.end is None:
        sentences.append("It has the lease, as far as the history tells.")
    return sentences


def _grant(attempt: Attempt, grant: Event) -> str:
    where = f" on {attempt.host}" if attempt.host else ""
    return (
        f"{_begin(attempt.name)} ({attempt.attempt_id}){where} got the lease at "
        f"{moment_text(grant.get('at'))} with fence {grant['fence']}, because "
        f"{grant_reason(grant, attempt.before)}."
    )


def _refusal(attempt: Attempt, refusal: Event) -> str:
    verdicts = {
        "lease-still-live": "was told to wait",
        "superseded-attempt": "was refused for good",
        "subjob-closed": "was told that there is nothing to do",
    }
    verdict = verdicts.get(refusal["code"], f"was refused ({refusal['code']})")
    where = f" on {attempt.host}" if attempt.host else ""
    name = attempt.name if attempt.number else f"attempt {attempt.attempt_id}"
    return f"{_at(refusal)} {name}{where} asked for the lease and {verdict}: {refusal['why']}."


def _work(event: Event) -> str:
    verb = {"phase-entered": "entered", "phase-completed": "completed", "phase-failed": "failed"}
    reason = f": {event['reason']}" if event.get("reason") else ""
    if event.get("is_underway"):
        reason = ", which it had begun without the server"
    return f"{_at(event)} it {verb[event['event']]} phase {event['phase']}{reason}."


def _recall(event: Event) -> str:
    return (
        f"{_at(event)} its lease was recalled, because {event['by_attempt_id']} is newer: it "
        "could finish by its deadline but not renew."
    )


def _observed(event: Event) -> str:
    verb = event["event"].removeprefix("job-")
    if verb == "ended":
        return f"{_at(event)} the access point reported that its job is over: {event['reason']}."
    why = hold_text(event) if verb == "held" else event.get("reason")
    return f"{_at(event)} its job was {verb} by {who_acted(event)}{f': {why}' if why else ''}."


def _late(attempt: Attempt) -> str:
    calls = ", ".join(dict.fromkeys(event["call"] for event in attempt.late_writes))
    since = "its lease had ended"
    if attempt.next:
        since = f"{attempt.next.name} has had fence {attempt.next.fence} since"
    return (
        f"{_at(attempt.late_writes[0])} it tried to write under fence {attempt.fence} ({calls}), "
        f"which was refused and changed nothing: {since}."
    )


def _end(attempt: Attempt, end: Event) -> str:
    if end["event"] == "lease-acquired":
        assert attempt.next is not None
        if end.get("ended_before") == "expired":
            failing = "finish by its deadline" if attempt.recalls else "renew in time"
            return (
                f"It did not {failing} and so lost the lease, which {attempt.next.name} got at "
                f"{moment_text(end.get('at'))}."
            )
        return f"{_at(end)} it lost the lease to {attempt.next.name}, because {_takeover(end)}."
    if end["event"] == "attempt-exited":
        reason = f": {end['reason']}" if is_wall_time(end.get("reason")) else ""
        return f"{_at(end)} its payload ended ({ending_text(end)}), and the lease with it{reason}."
    if end["event"] == "lease-abandoned":
        reason = f": {end['reason']}" if end.get("reason") else ""
        return f"{_at(end)} it gave the lease up{reason}."
    return _closings([end])[0]


def _takeover(grant: Event) -> str:
    if grant["why"] == "same-slot":
        return "that one started in the same slot, which proves that this one's starter is over"
    return "the plan lets a newer attempt take over at once"


def _at(event: Event) -> str:
    return f"At {moment_text(event.get('at'))}"


def _begin(text: str) -> str:
    return text[0].upper() + text[1:]
