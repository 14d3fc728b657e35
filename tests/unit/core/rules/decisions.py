"""Every command in every kind of state: `tests/data/decisions.txt` has what comes of each.

A line for each: the outcome, the events, and a digest of all that is told and of the state behind
it. `python -m tests.unit.core.rules.decisions` writes it anew; the difference says what a change of the
rules means, and belongs into its commit.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tests.unit.core.rules.world import GJID, STAGED, World, nonce

from htlease.rules import messages as m
from htlease.rules.acquire import decide, replayed_reply
from htlease.rules.attempt import Evidence, Place
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.profiles import plan_of
from htlease.rules.state import GRANTS_KEPT, REFUSALS_KEPT, REMOVALS_KEPT, SubjobState, apply

RECORD = Path(__file__).resolve().parents[3] / "data" / "decisions.txt"
LATER_GJID = "ap1#43.0#1795999999"
PLACE = Place("ep1", "slot1@ep1", "<10.0.0.1:9618>#1700000000")
SHORT = Plan((PhaseSpec("run", "once"),))
LIMITED = dataclasses.replace(STAGED, on_wall_time="fail")
AT_ONCE = dataclasses.replace(STAGED, takeover="immediate")


def _granted(world: World) -> None:
    world.grant("first", 1, place=PLACE)


def _working(world: World) -> None:
    _granted(world)
    world.run("first", "stage-in")
    world.write("first", m.Enter, "compute")
    world.write("first", m.Renew, "details of compute")


def _recalled(world: World) -> None:
    _working(world)
    world.acquire("second", 2)


def _lapsed(world: World) -> None:
    _working(world)
    world.now += 500


def _last_phase_left(world: World) -> None:
    _granted(world)
    world.run("first", "stage-in", "compute")
    world.write("first", m.Enter, "stage-out")


def _complete(world: World) -> None:
    _granted(world)
    world.run("first", "stage-in", "compute", "stage-out")


def _exited(world: World) -> None:
    _working(world)
    world.write("first", m.Exited, 3)


def _abandoned(world: World) -> None:
    _working(world)
    world.write("first", m.Abandon, "evicted")


def _overtaken(world: World) -> None:
    _abandoned(world)
    world.grant("second", 2)
    world.write("second", m.Enter, "stage-in")


def _failed_phase(world: World) -> None:
    _granted(world)
    world.write("first", m.Enter, "stage-in")
    world.write("first", m.Fail, "stage-in", "no such file", 2)


def _redo_complete(world: World) -> None:
    world.plan = Plan((PhaseSpec("run", "redo"),))
    _granted(world)
    world.run("first", "run")
    world.write("first", m.Exited, 0)


def _committed(world: World) -> None:
    _redo_complete(world)
    world.write("first", m.Commit)


def _settled(world: World) -> None:
    _exited(world)
    world.write("first", m.Settle, "failed", "gave up")


def _cancelled(world: World) -> None:
    _working(world)
    world.send(m.Cancel("no longer wanted"))


def _reopened(world: World) -> None:
    _settled(world)
    world.send(m.Enroll(LATER_GJID, 1))


def _forced_open(world: World) -> None:
    _complete(world)
    world.send(m.Enroll(None, force=True))


def _awaiting(world: World) -> None:
    world.send(m.Enroll(None, plan=STAGED))


def _script(world: World) -> None:
    world.acquire("first", 1, kind="pre", gjid=None)
    world.write("first", m.Enter, "stage-in")


def _held(world: World) -> None:
    _working(world)
    world.send(m.Observed(GJID, "held", "user", "look at it", 1, 0))


def _removed(world: World) -> None:
    _held(world)
    for number in range(REMOVALS_KEPT + 2):
        world.send(m.Observed(f"ap1#{number}.0#1", "removed", "user", None))


def _many_grants(world: World) -> None:
    _granted(world)
    for number in range(2, GRANTS_KEPT + 3):
        world.write("first", m.Abandon)
        world.grant("first" if number == GRANTS_KEPT + 2 else f"n{number}", number)
        world.fences["first"] = world.state.fence
        if number < GRANTS_KEPT + 2:
            world.fences["first"] = world.fences.pop(f"n{number}")
            world.send(m.Abandon(world.fences["first"], nonce(f"n{number}")))


def _many_refusals(world: World) -> None:
    _granted(world)
    for number in range(REFUSALS_KEPT + 1):
        world.acquire(f"n{number}", 1)


def _walltime(world: World) -> None:
    world.plan = LIMITED
    _working(world)


def _immediate(world: World) -> None:
    world.plan = AT_ONCE
    _working(world)


def _short(world: World) -> None:
    world.plan = SHORT
    _granted(world)
    world.write("first", m.Enter, "run")


def _machine(world: World) -> None:
    world.plan = plan_of("cts")
    _granted(world)


def _machine_working(world: World) -> None:
    _machine(world)
    assert world.state.plan is not None
    for phase in world.state.plan.phases[:3]:
        world.write("first", m.Enter, phase.name)


STATES: Mapping[str, Callable[[World], None]] = {
    function.__name__.strip("_").replace("_", "-"): function
    for function in (
        *(_granted, _working, _recalled, _lapsed, _last_phase_left, _complete, _exited),
        *(_abandoned, _overtaken, _failed_phase, _redo_complete, _committed, _settled),
        *(_cancelled, _reopened, _forced_open, _awaiting, _script, _held, _removed),
        *(_many_grants, _many_refusals, _walltime, _immediate, _short, _machine),
        _machine_working,
    )
}


def commands(state: SubjobState) -> Iterator[m.Command]:
    """Yield what may be asked of a subjob: by its holder, by one of before, and by strangers."""
    plan = state.plan or STAGED
    first, last = plan.phases[0].name, plan.phases[-1].name
    current = state.current_phase or first
    fence = state.fence
    for name, start in (("first", 1), ("again", 1), ("older", 0), ("newer", 3)):
        yield m.Acquire(nonce(name), "job", Evidence(start, start, None, 1), Place(), GJID)
    yield m.Acquire(nonce("slot"), "job", Evidence(3, 3, None, 1), PLACE, GJID, ttl_seconds=30)
    yield m.Acquire(nonce("later"), "job", Evidence(1, 1), Place(), LATER_GJID, host="ep9")
    yield m.Acquire(nonce("pre"), "pre", Evidence(1))
    yield m.Acquire(nonce("first"), "job", Evidence(1, 1, None, 1), plan=SHORT)
    yield m.Enroll(None)
    yield m.Enroll(GJID, links={"source": "ce#1.0#1"})
    yield m.Enroll(LATER_GJID, 2, plan=SHORT)
    yield m.Enroll(None, force=True)
    for pair in ((fence, "first"), (1, "first"), (fence, "stranger"), (fence + 7, "first")):
        who = (pair[0], nonce(pair[1]))
        yield m.Renew(*who)
        yield m.Enter(*who, current)
        yield m.Exited(*who, 1)
    who = (fence, nonce("second" if fence == 2 else "first"))
    yield m.Renew(*who, "new details")
    for phase in (first, current, last, "no-such"):
        yield m.Enter(*who, phase)
        yield m.Complete(*who, phase, {"result": "a.txt"} if phase == first else {})
        yield m.Fail(*who, phase, "broken", 4)
    yield m.Complete(1, nonce("first"), first)
    yield m.Exited(*who, None, 9, "walltime: over")
    yield m.Abandon(*who, "evicted")
    yield m.Commit(*who, "outputs are back")
    yield m.Settle(*who, "complete", "seen")
    yield m.Settle(*who, "failed", "seen")
    yield m.Settle(1, nonce("stranger"), "failed")
    yield m.Cancel("enough")
    yield m.Ended(GJID, 1, 1, 5, None, "seen")
    yield m.Ended(GJID, 1, 1, None, 9, "walltime: over")
    yield m.Ended(GJID, 2, 1, 5)
    yield m.Ended(LATER_GJID, 1, 1, 5)
    yield m.Observed(GJID, "held", "user", "why", 1, 2)
    yield m.Observed(LATER_GJID, "held", "user", None)
    yield m.Observed(GJID, "released", "user", None)
    yield m.Observed(GJID, "removed", "user", None)
    yield m.Observed("ap1#21.0#1", "removed", "user", None)


def lines() -> Iterator[str]:
    """Yield a line for what comes of every command in every state, with a digest of all of it."""
    for name, make in {"new": lambda world: None, **STATES}.items():
        world = World()
        make(world)
        yield f"## {name} {_digest(_changed(SubjobState(), world.state))}"
        later = world.now + 10
        for number, command in enumerate(commands(world.state)):
            decision = decide(world.state, command, later)
            after = apply(world.state, decision.events, later)
            parts = [told(decision), *_changed(world.state, after)]
            if isinstance(decision, m.Accepted):
                parts.append(told(replayed_reply(after, command, later + 1)))
                outcome = type(decision.reply).__name__
            else:
                outcome = decision.code
            events = "".join(f" +{type(event).__name__}" for event in decision.events)
            yield f"{number} {type(command).__name__}: {outcome}{events} {_digest(parts)}"


def _digest(told: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _changed(before: SubjobState, after: SubjobState) -> Iterator[str]:
    for field in dataclasses.fields(SubjobState):
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            yield f"{field.name}: {told(value)}"


def told(value: object) -> str:
    if dataclasses.is_dataclass(value):
        parts = [
            f"{field.name}={told(part)}"
            for field in dataclasses.fields(value)
            if (part := getattr(value, field.name)) is not None
        ]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {told(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(told(part) for part in value) + "]"
    return str(value)


def text() -> str:
    """Return the whole record."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    RECORD.write_text(text())
