"""Small worlds to be explored: two or three attempts of one subjob, two phases, and what may be so of them.

What decides nothing is folded away, or there would be no last state to reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tests.unit.core.rules.world import GJID, nonce

from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, Place
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.state import HELD, SubjobState

TTL = 120.0
NOW = 1000.0
#: The step number that stands for a renewal.
RENEWAL = 99
#: What an attempt says, in order. Renewals may be sent at any time between acquire and the end.
PROGRAM = ("acquire", "enter p1", "complete p1", "enter p2", "complete p2", "exited")


class Client(NamedTuple):
    """One attempt as itself sees it."""

    is_started: bool = False
    is_dead: bool = False
    #: How many steps of the program were answered.
    answered: int = 0
    #: Whether the next step has been sent, so that it may arrive at any time from now on.
    is_sent: bool = False
    fence: int = 0
    #: Believes to hold the lease: an answer to something sent since time last passed.
    believes: bool = False
    #: Its outstanding message was sent since time last passed.
    is_fresh: bool = False


class Node(NamedTuple):
    """One state of the world; instants are folded to live or lapsed."""

    #: Which of the explorer's server states.
    state: int
    #: A bit for each (attempt, step) that the server accepted and remembers.
    accepted: int
    clients: tuple[Client, ...]
    #: The latest attempt that was granted the lease.
    latest: int = -1


@dataclass(frozen=True)
class Setting:
    """One small world."""

    name: str
    evidence: tuple[Evidence, ...]
    plan: Plan
    places: tuple[Place, ...] = (Place(), Place(), Place())
    #: Evidence orders the attempts, so that none may follow a later one.
    is_ordered: bool = True
    attempts: int = 3


PHASES = (PhaseSpec("p1", "redo"), PhaseSpec("p2", "once"))
PLAN = Plan(PHASES)
ORDINARY = tuple(Evidence(start, start, None, 1) for start in (1, 2, 3))
SLOT = Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1")
SETTINGS = (
    Setting("ordinary restarts", ORDINARY, PLAN),
    Setting(
        "the counter repeats: dead shadows",
        tuple(Evidence(1, shadow, None, 1) for shadow in (1, 3, 5)),
        PLAN,
    ),
    Setting("no evidence at all", (Evidence(),) * 3, PLAN, is_ordered=False),
    Setting(
        "the second start follows a dead one in its slot", ORDINARY, PLAN, (SLOT, SLOT, Place())
    ),
    Setting("immediate takeover", ORDINARY, Plan(PHASES, "immediate")),
    Setting(
        "a last phase that is redone",
        ORDINARY,
        Plan((PhaseSpec("p1", "resume"), PhaseSpec("p2", "redo"))),
    ),
)


def command_of(setting: Setting, attempt: int, step: int, fence: int) -> m.Command:
    secret = nonce(f"attempt {attempt}")
    if step == RENEWAL:
        return m.Renew(fence, secret)
    word, _, phase = PROGRAM[step].partition(" ")
    if word == "acquire":
        return m.Acquire(
            secret,
            "job",
            setting.evidence[attempt],
            setting.places[attempt],
            GJID,
            ttl_seconds=TTL,
            plan=setting.plan,
        )
    if word == "enter":
        return m.Enter(fence, secret, phase)
    if word == "complete":
        return m.Complete(fence, secret, phase)
    return m.Exited(fence, secret, 0)


def with_client(node: Node, attempt: int, **changes: Any) -> Node:
    clients = list(node.clients)
    client = clients[attempt]._replace(**changes)
    if client.is_dead:  # what it believed no longer tells worlds apart
        client = client._replace(believes=False, is_fresh=False)
    clients[attempt] = client
    return node._replace(clients=tuple(clients))


class FrozenDict(dict):  # type: ignore[type-arg]
    """A mapping that can be part of a visited state."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def folded_state(state: SubjobState) -> SubjobState:
    """Drop what does not decide anything: instants, counts for people, notes of refusals."""
    deadline_at = NOW + TTL if state.is_live(NOW) else NOW - 1
    phases = {
        name: m.PhaseRecord(
            name,
            entered_fence=record.entered_fence,
            completed_fence=record.completed_fence,
            artifacts=FrozenDict(),
        )
        for name, record in state.phases.items()
    }
    return replace(
        state,
        deadline_at=deadline_at if state.status in HELD else 0.0,
        phases=FrozenDict(phases),
        submissions=FrozenDict(state.submissions),
        last_evidence=FrozenDict(state.last_evidence),
        refusals=(),
        recalled_by="somebody" if state.recalled_by else None,
        details=None,
        details_phase=None,
    )
