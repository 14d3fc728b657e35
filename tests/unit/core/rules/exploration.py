"""Small worlds, explored to the last reachable state.

Every message that was ever sent may arrive now, later, again or never, and its reply may be lost;
leases run out; attempts die silently; the server crashes, forgets what need not be durable, and
comes back. The explorer visits every combination and checks each step, so a rule that is wrong in
some corner has nowhere to hide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from tests.unit.core.rules.promises import Broken, Decide, check_state
from tests.unit.core.rules.small_worlds import (
    NOW,
    PROGRAM,
    RENEWAL,
    Client,
    Node,
    Setting,
    command_of,
    folded_state,
    with_client,
)
from tests.unit.core.rules.world import GJID

from htlease.rules import messages as m
from htlease.rules.acquire import decide, replayed_reply
from htlease.rules.state import Status, SubjobState, after_downtime, apply


class Explorer:
    """Visits every reachable state of a setting and checks every step.

    There are few server states and many worlds around each, so what the rules say to a message
    in a state is asked once and remembered.
    """

    def __init__(self, setting: Setting, rules: Decide = decide) -> None:
        self.setting = setting
        self.rules = rules
        self.seen: dict[Node, tuple[Node, str] | None] = {}
        self.states: list[SubjobState] = []
        self.numbers: dict[SubjobState, int] = {}
        self.answers: dict[tuple[int, int, int, int, bool], tuple[int, m.Decision]] = {}

    def run(self) -> int:
        start = Node(self.number(SubjobState()), 0, (Client(),) * self.setting.attempts)
        self.seen[start] = None
        todo = deque([start])
        while todo:
            node = todo.popleft()
            for label, after in self.steps(node):
                if after not in self.seen:
                    self.seen[after] = (node, label)
                    self.check_believers(after)
                    todo.append(after)
        for state in self.states:
            check_state(self.setting, self.rules, state)
        return len(self.seen)

    def number(self, state: SubjobState) -> int:
        folded = folded_state(state)
        if folded not in self.numbers:
            self.numbers[folded] = len(self.states)
            self.states.append(folded)
        return self.numbers[folded]

    # -------------------------------------------------------- what may happen

    def steps(self, node: Node) -> Iterator[tuple[str, Node]]:
        for attempt, client in enumerate(node.clients):
            if not client.is_started:
                if self.may_start(node, attempt):
                    yield f"{attempt} starts", with_client(node, attempt, is_started=True)
                continue
            if not client.is_dead:
                yield f"{attempt} dies", with_client(node, attempt, is_dead=True, believes=False)
                if not client.is_sent and client.answered < len(PROGRAM):
                    is_last = client.answered == len(PROGRAM) - 1
                    sent = with_client(
                        node,
                        attempt,
                        is_sent=True,
                        is_fresh=True,
                        believes=client.believes and not is_last,
                    )
                    yield f"{attempt} sends {PROGRAM[client.answered]}", sent
            yield from self.arrivals(node, attempt, client)
            if client.is_dead and self.setting.is_ordered and attempt == node.latest:
                yield f"the access point reports the end of {attempt}", self.report(node, attempt)
        state = self.states[node.state]
        if state.is_live(NOW):
            yield "the lease runs out", self.time_passes(node)
        yield "the server crashes and comes back", node._replace(state=self.crash(state))

    def may_start(self, node: Node, attempt: int) -> bool:
        if attempt == 0:
            return True
        before = node.clients[attempt - 1]
        same_slot = self.setting.places[attempt].is_same_slot_as(self.setting.places[attempt - 1])
        return before.is_started and (before.is_dead or not same_slot)

    def arrivals(self, node: Node, attempt: int, client: Client) -> Iterator[tuple[str, Node]]:
        last = client.answered if client.is_sent else client.answered - 1
        for step in range(last + 1):
            after, decision = self.arrive(node, attempt, step, client.fence)
            yield f"{PROGRAM[step]} of {attempt} arrives, reply lost", after
            if step == client.answered and not client.is_dead:
                label = f"{PROGRAM[step]} of {attempt} arrives, {describe(decision)}"
                yield label, self.answer(after, attempt, decision)
        if client.fence and client.answered < len(PROGRAM):
            after, decision = self.arrive(node, attempt, RENEWAL, client.fence)
            yield f"renewal of {attempt} arrives late", after
            is_extended = isinstance(decision, m.Accepted) and decision.events
            is_leaving = client.is_sent and client.answered == len(PROGRAM) - 1
            if is_extended and not client.is_dead and not is_leaving:
                yield f"{attempt} renews", with_client(after, attempt, believes=True)

    def arrive(self, node: Node, attempt: int, step: int, fence: int) -> tuple[Node, m.Decision]:
        bit = 0 if step == RENEWAL else 1 << (attempt * len(PROGRAM) + step)
        is_repeated = bool(node.accepted & bit)
        question = (node.state, attempt, step, fence, is_repeated)
        if question not in self.answers:
            state = self.states[node.state]
            command = command_of(self.setting, attempt, step, fence)
            decision = (replayed_reply if is_repeated else self.rules)(state, command, NOW)
            after = apply(state, decision.events, NOW)
            self.check_fence(node, decision, state, after)
            self.answers[question] = (self.number(after), decision)
        number, decision = self.answers[question]
        accepted, latest = node.accepted, node.latest
        if decision.events:
            self.check_order(node, attempt, decision)
            if isinstance(decision, m.Accepted):
                accepted |= bit
            if any(isinstance(event, m.LeaseAcquired) for event in decision.events):
                latest = attempt
        return Node(number, accepted, node.clients, latest), decision

    def report(self, node: Node, attempt: int) -> Node:
        state, evidence = self.states[node.state], self.setting.evidence[attempt]
        command = m.Ended(GJID, evidence.job_starts, evidence.shadow_starts)
        decision = self.rules(state, command, NOW)
        is_believed = any(client.believes for client in node.clients)
        if is_believed and decision.events and self.setting.plan.takeover == "wait":
            raise Broken(self.way(node, f"the report on {attempt} took a living one's lease"))
        return node._replace(state=self.number(apply(state, decision.events, NOW)))

    def answer(self, node: Node, attempt: int, decision: m.Decision) -> Node:
        client = node.clients[attempt]
        if isinstance(decision, m.Rejection):
            if decision.code == "lease-still-live":
                return with_client(node, attempt, is_sent=False)  # asks again
            return with_client(node, attempt, is_dead=True, believes=False)
        fence, believes = client.fence, client.believes
        if isinstance(decision.reply, m.Grant):
            fence = decision.reply.fence
            believes = client.is_fresh
        answered = client.answered + 1
        return with_client(
            node,
            attempt,
            answered=answered,
            is_sent=False,
            fence=fence,
            believes=believes and answered < len(PROGRAM),
        )

    def time_passes(self, node: Node) -> Node:
        clients = tuple(client._replace(believes=False, is_fresh=False) for client in node.clients)
        lapsed = replace(self.states[node.state], deadline_at=NOW - 1)
        return node._replace(state=self.number(lapsed), clients=clients)

    def crash(self, state: SubjobState) -> int:
        """Whatever was live at the crash lives on; beliefs outlast it, it may be short."""
        recorded = replace(state, deadline_at=NOW + 1 if state.is_live(NOW) else NOW - 1)
        return self.number(after_downtime(recorded, NOW, NOW))

    # -------------------------------------------------------- what must hold

    def check_fence(
        self, node: Node, decision: m.Decision, before: SubjobState, after: SubjobState
    ) -> None:
        if not before.fence <= after.fence <= before.fence + 1:
            raise Broken(self.way(node, f"fence {before.fence} -> {after.fence}"))
        if before.status is Status.COMPLETE and after.status is not Status.COMPLETE:
            raise Broken(self.way(node, "a complete subjob was opened"))

    def check_order(self, node: Node, attempt: int, decision: m.Decision) -> None:
        notes = (m.AttemptRefused, m.WriteRefused, m.LeaseRecalled, m.SubmissionEnrolled)
        if self.setting.is_ordered and attempt < node.latest:
            if any(not isinstance(event, notes) for event in decision.events):
                what = f"attempt {attempt} changed something after {node.latest} was granted"
                raise Broken(self.way(node, f"{what}: {decision.events}"))

    def check_believers(self, node: Node) -> None:
        believers = [index for index, client in enumerate(node.clients) if client.believes]
        if len(believers) > 1 and self.setting.plan.takeover == "wait":
            raise Broken(self.way(node, f"{believers} believe to hold the lease"))

    def way(self, node: Node, what: str) -> str:
        labels: list[str] = [what]
        at: Node | None = node
        while at is not None and (step := self.seen.get(at)) is not None:
            at, label = step
            labels.append(label)
        return f"{self.setting.name}:\n  " + "\n  ".join(reversed(labels))


def describe(decision: m.Decision) -> str:
    return decision.code if isinstance(decision, m.Rejection) else "accepted"
