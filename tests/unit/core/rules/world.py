"""A subjob and the hands on it, moved by hand: what the rule tests are written in."""

from __future__ import annotations

from dataclasses import dataclass, field

from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.attempt import Evidence, Place
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.state import SubjobState, apply

STAGED = Plan(
    (
        PhaseSpec("stage-in", "redo"),
        PhaseSpec("compute", "resume"),
        PhaseSpec("stage-out", "once"),
    )
)
GJID = "ap1#42.0#1795225431"


def nonce(name: str) -> str:
    return f"nonce-of-{name}".ljust(16, ".")


@dataclass
class World:
    """One subjob, a clock that only the test moves, and the fences that were granted."""

    plan: Plan = STAGED
    now: float = 1000.0
    state: SubjobState = field(default_factory=SubjobState)
    fences: dict[str, int] = field(default_factory=dict)
    history: list[m.Event] = field(default_factory=list)

    def send(self, command: m.Command) -> m.Decision:
        decision = decide(self.state, command, self.now)
        self.state = apply(self.state, decision.events, self.now)
        self.history.extend(decision.events)
        return decision

    def acquire(
        self,
        name: str,
        start: int | None = None,
        shadow: int | None = None,
        *,
        gjid: str | None = GJID,
        kind: str = "job",
        place: Place | None = None,
        plan: Plan | None = None,
        sandbox_seq: int | None = 1,
    ) -> m.Decision:
        shadow = start if shadow is None else shadow
        decision = self.send(
            m.Acquire(
                nonce(name),
                kind,
                Evidence(start, shadow, None, sandbox_seq),
                place or Place(),
                gjid,
                plan=plan or self.plan,
            )
        )
        if isinstance(decision, m.Accepted) and isinstance(decision.reply, m.Grant):
            self.fences[name] = decision.reply.fence
        return decision

    def grant(self, name: str, start: int, **options: object) -> m.Grant:
        """Acquire for a test that takes the grant for granted."""
        decision = self.acquire(name, start, **options)  # type: ignore[arg-type]
        assert isinstance(decision, m.Accepted), decision
        assert isinstance(decision.reply, m.Grant)
        return decision.reply

    def refusal(self, decision: m.Decision) -> str:
        assert isinstance(decision, m.Rejection), decision
        return decision.code

    def write(self, name: str, kind: type, *args: object) -> m.Decision:
        return self.send(kind(self.fences[name], nonce(name), *args))

    def run(self, name: str, *phases: str) -> None:
        """Enter and complete phases, which must be accepted."""
        for phase in phases:
            for call in (m.Enter, m.Complete):
                decision = self.write(name, call, phase)
                assert isinstance(decision, m.Accepted), decision
