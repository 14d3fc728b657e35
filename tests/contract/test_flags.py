"""Flags on every store: what they hold back, whom, and that they outlast servers."""

from __future__ import annotations

from pathlib import Path

from tests.contract.drill import KEY, Drill, acquire, nonce, refused
from tests.contract.stores import STORES

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease.wire.protocol import body_of
from htlease_server.store.base import FlagRow

PLAN = Plan((PhaseSpec("fetch", needs=("hpss", "pftp")), PhaseSpec("compute")))
ENTER = m.Enter(1, nonce(1), "fetch")
OTHER = SubjobKey("run8", "sample-1")


def refusal(drill: Drill, key: SubjobKey = KEY) -> str | None:
    """Return the flag for which the first phase cannot be entered, or None when it was."""
    answer = drill.ask(ENTER, key)
    if isinstance(answer, m.Rejection):
        assert answer.code == "blocked", answer
        return answer.flag
    return None


def test_a_flag_that_is_down_holds_back_what_needs_it_and_leaves_no_mark(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    before, state = drill.history(), drill.state()
    drill.flag("pftp", False, "upgrade")
    drill.flag("hpss", False)
    drill.flag("lustre", False)
    assert refusal(drill) == "hpss"
    assert (drill.history(), drill.state()) == (before, state)
    assert drill.ask(m.Renew(1, nonce(1))).order == "continue"
    drill.flag("hpss", True)
    assert refusal(drill) == "pftp"
    drill.flag("pftp", True)
    assert refusal(drill) is None


def test_a_start_that_heeds_flags_is_refused_its_lease_and_leaves_no_mark(drill: Drill) -> None:
    drill.put(KEY.workflow, plan=body_of(acquire(plan=PLAN), "r")["plan"])
    drill.flag("hpss", False, "tape robot")
    heeding = acquire(heeds_flags=True)
    answer = drill.ask(heeding)
    assert (refused(answer), answer.flag) == ("blocked", "hpss")
    assert drill.read(drill.queries.subjob(KEY)) is None
    drill.flag("hpss", True)
    assert drill.ask(heeding).fence == 1
    drill.flag("hpss", False, "tape robot")
    assert drill.ask(heeding).fence == 1, "its reply was lost"
    drill.ask(m.Abandon(1, nonce(1)))
    before = drill.history()
    assert refused(drill.ask(acquire(2, heeds_flags=True))) == "blocked"
    assert drill.history() == before
    assert drill.acquire(number=2).fence == 2, "one that asks again before it enters"


def test_what_was_entered_before_stays_entered(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    drill.ask(ENTER, request_id="the same")
    drill.flag("hpss", False)
    assert isinstance(drill.ask(ENTER, request_id="the same"), m.PhaseRecord)
    assert refusal(drill) is None
    assert isinstance(drill.ask(m.Complete(1, nonce(1), "fetch")), m.PhaseRecord)


def test_a_flag_of_one_group_holds_back_its_workflows_alone(drill: Drill) -> None:
    drill.put(KEY.workflow, labels={"group": "atlas"})
    drill.put(OTHER.workflow, labels={"group": "cms"})
    for key in (KEY, OTHER):
        drill.acquire(key, plan=PLAN)
    drill.flag("hpss@atlas", False, "quota")
    assert (refusal(drill), refusal(drill, OTHER)) == ("hpss@atlas", None)
    names = [
        [flag["name"] for flag in drill.read(drill.queries.flags(workflow))["flags"]]
        for workflow in (KEY.workflow, OTHER.workflow, "nobody-knows", None)
    ]
    assert names == [["hpss@atlas"], [], [], ["hpss@atlas"]]


def test_flags_outlast_the_server(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    drill.flag("hpss", False, "tape robot")
    drill.restart(after_seconds=10)
    assert refusal(drill) == "hpss"
    [flag] = drill.read(drill.queries.flags(None))["flags"]
    assert (flag["is_up"], flag["reason"], flag["actor"]) == (False, "tape robot", "admin")


def test_a_flag_that_the_store_did_not_keep_holds_back_nothing(refusing: Drill) -> None:
    refusing.acquire(plan=PLAN)
    refusing.store.is_full = True
    answer = refusing.flag("hpss", False)
    assert isinstance(answer, m.Rejection) and answer.code == "overloaded"
    refusing.store.is_full = False
    assert refusal(refusing) is None
    assert isinstance(refusing.flag("hpss", False), FlagRow)


def test_a_flag_lowered_on_one_server_holds_back_at_once_on_another(tmp_path: Path) -> None:
    here, there = (Drill(STORES["postgresql"], tmp_path) for _ in range(2))
    try:
        here.put(KEY.workflow, labels={"group": "atlas"})
        here.acquire(plan=PLAN)
        assert isinstance(there.ask(m.Renew(1, nonce(1))), m.Renewal)
        here.flag("pftp@atlas", False)
        assert refusal(there) == "pftp@atlas"
        there.flag("hpss", False)
        assert refusal(here) == "hpss"
        there.flag("hpss", True)
        here.flag("pftp@atlas", True)
        assert refusal(there) is None
    finally:
        here.close()
        there.close()
