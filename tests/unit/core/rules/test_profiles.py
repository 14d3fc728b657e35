"""Named state machines are data; the CDM Task Service's equals what was read from its code."""

import json
from pathlib import Path

import pytest

from htlease.errors import InvalidField
from htlease.rules.profiles import PROFILE_NAMES, find_flow, load_profile, plan_of

RECORDED = Path(__file__).parents[3] / "data" / "cts-states.json"
DESIGN = Path(__file__).parents[5] / "shared" / "design" / "cts-states.json"


def test_cts_profile_equals_the_recorded_state_machine() -> None:
    recorded = json.loads(RECORDED.read_text())
    profile = load_profile("cts")
    assert {flow.name for flow in profile.flows} == set(recorded["transitions"])
    for flow in profile.flows:
        assert flow.transitions == {tuple(pair) for pair in recorded["transitions"][flow.name]}
        assert flow.initial == recorded["initial"][flow.name]
        is_refdata = flow.name.startswith("refdata")
        terminal = recorded["refdata_terminal" if is_refdata else "terminal"]
        assert set(flow.terminal) == set(terminal) & set(flow.states)
        used = {flow.initial} | {state for pair in flow.transitions for state in pair}
        assert set(flow.states) == used
        assert used <= set(recorded["refdata_states" if is_refdata else "states"])


@pytest.mark.skipif(not DESIGN.exists(), reason="the design folder is not beside this checkout")
def test_recorded_state_machine_is_the_one_in_the_design() -> None:
    assert json.loads(RECORDED.read_text()) == json.loads(DESIGN.read_text())


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_every_flow_is_closed_over_its_states_and_can_end(name: str) -> None:
    for flow in load_profile(name).flows:
        states = set(flow.states)
        assert flow.initial in states
        assert {state for pair in flow.transitions for state in pair} <= states
        assert set(flow.terminal) <= states
        reached = {flow.initial}
        while more := {after for before, after in flow.transitions if before in reached} - reached:
            reached |= more
        assert reached >= set(flow.terminal)
        assert plan_of(f"{name}:{flow.name}").profile == f"{name}:{flow.name}"


def test_unknown_profile_and_flow_are_refused_with_those_that_exist() -> None:
    with pytest.raises(InvalidField, match="simple, staged, cts"):
        find_flow("ganga")
    with pytest.raises(InvalidField, match="kbase_htcondor_subjob"):
        find_flow("cts:nersc")
