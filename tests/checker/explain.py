"""Decides whether the lease rules explain what a server answered and what it recorded.

The server's own history gives the order in which it says that it acted; nothing else of it is
believed. With that order as the witness the search for a linearization is not exponential:

1.  Rules   every event of the history is what `acquire.decide` makes of a request that some
            client sent, in the state that the events before it lead to. Nothing is recorded
            twice, by nobody, or under a fence that was not there.
2.  Order   no event stands behind one whose request was sent after the former's was answered.
3.  Answers every answer, of refusals, repetitions, renewals and reads too, is what the rules say
            at some point of the history between its request and its arrival, and these points
            respect the order in which the clients saw their answers. So an acknowledged write
            that is not in the history, or a refused one that changed something, has no place.
4.  Holders a lease that was taken because it had run out had run out: nobody had been promised it
            for longer, by an answer or by rule 8 (a restart prolongs every live lease).
5.  State   what the server shows at the end is what the events lead to.

Whether a lease was live at an instant is not in the history (renewals are not), so 1 and 3 accept
either and 4 decides it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from htlease.rules import messages as m
from htlease.rules.acquire import decide, replayed_reply
from htlease.rules.attempt import SubjobKey
from htlease.rules.state import HELD, REQUESTS_KEPT, SubjobState, apply, replace
from htlease.wire.protocol import problem_document, reply_document, seconds_of
from htlease_server.engine.history import EVENT_NAMES, data_of
from tests.checker.holders import overlapping
from tests.checker.record import Delivery, Outage, Recording
from tests.checker.shown import facts, facts_of, shows
from tests.checker.steps import Finding, Step

#: Refusals that say nothing about the subjob.
_NOT_OF_THE_RULES = {
    "overloaded",
    "outcome-unknown",
    "unauthorized",
    "forbidden",
    "invalid",
    "too-large",
}
#: Of no meaning for the rules, or told by no model: instants and durations.
_DATA = {"seq", "at", "actor", "client_at", "via", "deadline_at", "nonce_digest"}
_DURATIONS = {"expires_in_seconds", "retry_after_seconds"}


def findings(recording: Recording, outages: Sequence[Outage] = ()) -> list[Finding]:
    """Return all that the rules do not explain of one subjob; nothing when all is well."""
    steps, found = _replayed(recording)
    found += _out_of_order(steps)
    if not any(finding.kind == "rules" for finding in found):
        found += _unexplained(recording, steps)
        found += _wrong_end(recording, steps[-1])
    found += overlapping(recording, steps, outages)
    return found


# ------------------------------------------------------------ 1: rules


def _replayed(recording: Recording) -> tuple[list[Step], list[Finding]]:
    sent: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in recording.deliveries:
        if delivery.command is not None:
            sent[delivery.request_id].append(delivery)
    steps = [Step(SubjobState(), 0.0, {})]
    rows, found = recording.history, list[Finding]()
    if [row["seq"] for row in rows] != list(range(1, len(rows) + 1)):
        found.append(Finding("rules", f"{recording.key}: the history has gaps"))
    index = 0
    while index < len(rows):
        row = rows[index]
        made = [
            (step, taken)
            for command in _commands_of(sent.get(row["request_id"], ()))
            for step, taken in _made_by(command, steps[-1], rows, index, recording.key)
        ]
        if not made:
            who = "\n  ".join(map(str, sent.get(row["request_id"], ()))) or "nobody sent it"
            found.append(
                Finding(
                    "rules",
                    f"{recording.key}: no request makes event {row['seq']} of"
                    f" {steps[-1].state.status.value} under fence {steps[-1].state.fence}:"
                    f"\n  {row}\n  {who}",
                )
            )
            break
        step, taken = made[0]
        deliveries = sent[row["request_id"]]
        if all(one.is_answered and not _is_told(one, step) for one in deliveries):
            told = "\n  ".join(map(str, deliveries))
            text = f"{recording.key}: event {row['seq']} happened, and nobody was told:\n  {told}"
            found.append(Finding("answers", text))
        steps.append(_timed(step, deliveries, steps))
        index += taken
    return steps, found


def _commands_of(deliveries: Iterable[Delivery]) -> list[m.Command]:
    """Return the different commands that were sent under one request ID."""
    found: list[m.Command] = []
    for delivery in deliveries:
        if delivery.command is not None and delivery.command not in found:
            found.append(delivery.command)
    return found


def _made_by(
    command: m.Command, before: Step, rows: Sequence[Any], index: int, key: SubjobKey
) -> Iterator[tuple[Step, int]]:
    """Yield what a command makes of a state, if the history goes on with exactly that."""
    row = rows[index]
    if _known(command, row["request_id"], before) is not None:
        return
    now = _instant(row["at"])
    for state in _live_or_not(before.state, now):
        decision = decide(state, command, now)
        names = [EVENT_NAMES[type(event)] for event in decision.events]
        there = rows[index : index + len(names)]
        if not names or [one["event"] for one in there] != names:
            continue
        if any(
            _recorded(event) != _shown(one)
            for event, one in zip(decision.events, there, strict=True)
        ):
            continue
        if any(one["request_id"] != row["request_id"] for one in there):
            continue
        remembered = dict(before.remembered)
        if isinstance(decision, m.Accepted):
            remembered[row["request_id"]] = (command, decision)
            while len(remembered) > REQUESTS_KEPT:
                del remembered[next(iter(remembered))]
        status, answer = _answer_of(decision, key)
        why = next((e.why for e in decision.events if isinstance(e, m.LeaseAcquired)), None)
        after = apply(state, decision.events, now)
        yield Step(after, now, remembered, row["request_id"], answer, status, why), len(names)


def _known(command: m.Command, request_id: str, step: Step) -> tuple[m.Command, m.Accepted] | None:
    """Return what was accepted under a request ID; renewals are neither remembered nor compared."""
    if isinstance(command, m.Renew) and command.details is None:
        return None
    return step.remembered.get(request_id)


def _timed(step: Step, deliveries: Sequence[Delivery], before: Sequence[Step]) -> Step:
    """Return a step with the widest time in which its request can have been done."""
    told = [one.answered_at for one in deliveries if _is_told(one, step)]
    latest = min(told, default=math.inf)
    is_again = any(step.request_id == earlier.request_id for earlier in before)
    may_repeat = step.status != 200 or any(isinstance(one.command, m.Cancel) for one in deliveries)
    if is_again or may_repeat:
        # Another delivery may have got the same answer before, without leaving a trace.
        is_lost = not all(one.is_answered for one in deliveries)
        latest = math.inf if is_again or is_lost else max(told, default=math.inf)
    return step._replace(after=min(one.sent_at for one in deliveries), before=latest)


def _is_told(delivery: Delivery, step: Step) -> bool:
    return delivery.status == step.status and _plain(delivery.document) == step.answer


def _live_or_not(state: SubjobState, now: float) -> Iterator[SubjobState]:
    if state.status not in HELD or state.holder is None:
        yield state
        return
    yield replace(state, deadline_at=now + state.holder.ttl_seconds)
    yield replace(state, deadline_at=now - 1)


def _recorded(event: m.Event) -> Any:
    return _shown(json.loads(data_of(event)))


def _shown(row: Mapping[str, Any]) -> Any:
    without = {*_DATA, "event", "request_id"}
    return {name: value for name, value in row.items() if name not in without}


def _instant(text: str) -> float:
    """Return an instant of the history; it was cut to milliseconds and would be cut again."""
    return seconds_of(text) + 0.0004


# ------------------------------------------------------------ 2: order


def _out_of_order(steps: Sequence[Step]) -> list[Finding]:
    latest: Step | None = None
    found = []
    for step in steps[1:]:
        if latest is not None and step.before < latest.after:
            found.append(
                Finding(
                    "order",
                    f"{step.request_id} was answered at {step.before:.3f} and stands behind"
                    f" {latest.request_id}, which was sent at {latest.after:.3f}",
                )
            )
        if latest is None or step.after > latest.after:
            latest = step
    return found


# ------------------------------------------------------------ 3: answers


def _unexplained(recording: Recording, steps: Sequence[Step]) -> list[Finding]:
    found: list[Finding] = []
    #: (answered at, position) of what was explained, positions rising; see `_floor`.
    placed: list[tuple[float, int]] = []
    answered = [delivery for delivery in recording.deliveries if delivery.is_answered]
    for delivery in sorted(answered, key=lambda delivery: delivery.answered_at):
        code = delivery.document.get("code") if isinstance(delivery.document, dict) else None
        if code in _NOT_OF_THE_RULES:
            continue
        lowest = _floor(placed, delivery.sent_at)
        highest = len(steps) - 1
        for position, step in enumerate(steps[1:], 1):
            if step.before < delivery.sent_at:
                lowest = max(lowest, position)
            if step.after > delivery.answered_at:
                highest = min(highest, position - 1)
        position = next(
            (
                position
                for position in range(lowest, highest + 1)
                if _explains(steps, position, delivery, recording.key)
            ),
            -1,
        )
        if position < 0 and _is_remembered(recording, steps, delivery, highest):
            continue
        if position < 0:
            found.append(_no_place(recording, steps, delivery, lowest, highest))
        elif not placed or position > placed[-1][1]:
            placed.append((delivery.answered_at, position))
    return found


def _is_remembered(
    recording: Recording, steps: Sequence[Step], delivery: Delivery, highest: int
) -> bool:
    """Tell whether a request was refused so before, under the same ID: it is then told the same."""
    same = [other for other in recording.deliveries if other.request_id == delivery.request_id]
    document = _plain(delivery.document)
    if document.get("code") == "request-id-reused":
        return any(other.command != delivery.command for other in same)
    first_sent_at = min(other.sent_at for other in same)
    if delivery.status == 200 or first_sent_at == delivery.sent_at:
        return False
    lowest = max(
        (position for position, step in enumerate(steps) if step.before < first_sent_at), default=0
    )
    return any(
        _explains(steps, position, delivery, recording.key)
        for position in range(lowest, highest + 1)
    )


def _floor(placed: Sequence[tuple[float, int]], sent_at: float) -> int:
    """Return the highest position that some client had seen before a request was sent."""
    return max((position for answered_at, position in placed if answered_at < sent_at), default=0)


def _explains(steps: Sequence[Step], position: int, delivery: Delivery, key: SubjobKey) -> bool:
    step, command = steps[position], delivery.command
    document = _plain(delivery.document)
    if command is None:
        return shows(delivery.status, document, step.state, position > 0)
    if step.request_id == delivery.request_id:
        if (step.status, step.answer) == (delivery.status, document):
            return True
    if position == 0 and not isinstance(command, (m.Enroll, m.Acquire)):
        return bool(document.get("code") == "unknown-subjob")
    known = _known(command, delivery.request_id, step)
    # Durations and the instant are not looked at, so any will do.
    for state in _live_or_not(step.state, step.at):
        decision: m.Decision
        if known is None:
            decision = decide(state, command, step.at)
            if any(not isinstance(event, m.LeaseRenewed) for event in decision.events):
                continue  # it would have left a trace
        elif known[0] != command:
            return bool(document.get("code") == "request-id-reused")
        elif isinstance(command, m.Enroll):
            decision = known[1]  # the epoch of then, whatever was enrolled since
        else:
            decision = replayed_reply(state, command, step.at)
        if _answer_of(decision, key) == (delivery.status, document):
            return True
    return False


def _no_place(
    recording: Recording, steps: Sequence[Step], delivery: Delivery, lowest: int, highest: int
) -> Finding:
    around = [
        f"{position:4} {step.request_id} {step.status} {step.state.status.value} fence"
        f" {step.state.fence} ({step.after:.3f} to {step.before:.3f})"
        for position, step in enumerate(steps)
        if lowest - 2 <= position <= highest + 2
    ]
    if len(around) > 12:
        around = [*around[:6], "  …", *around[-6:]]
    return Finding(
        "reads" if delivery.command is None else "answers",
        f"{recording.key}: no point between {lowest} and {highest} of the history explains"
        f" {delivery}\n  " + "\n  ".join(around),
    )


def _answer_of(decision: m.Decision, key: SubjobKey) -> tuple[int, Any]:
    if isinstance(decision, m.Rejection):
        document = problem_document(decision, key)
        return document["status"], _plain(document)
    return 200, _plain(msgspec.to_builtins(reply_document(decision.reply)))


def _plain(document: Any) -> Any:
    """Return a document as JSON has it, without durations."""
    if not isinstance(document, dict):
        return document
    plain = {name: value for name, value in document.items() if name not in _DURATIONS}
    return json.loads(json.dumps(plain))


# ------------------------------------------------------------ 5: state


def _wrong_end(recording: Recording, last: Step) -> list[Finding]:
    status = 404 if recording.final is None else 200
    if shows(status, recording.final, last.state, bool(recording.history)):
        return []
    shown = recording.final and facts_of(recording.final)
    text = f"{recording.key} is shown as\n  {shown}\n  and should be\n  {facts(last.state)}"
    return [Finding("state", text)]
