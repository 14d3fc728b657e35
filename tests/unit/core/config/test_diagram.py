"""Diagrams come from the tables, and the manual's are the ones that come from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease.config.diagram import diagram_of, dot, mermaid, refresh
from htlease.errors import InvalidField
from htlease.rules.profiles import PROFILE_NAMES, load_profile
from htlease.rules.state import TRANSITIONS, Status

DOCS = Path(__file__).parents[4] / "docs"
FLOWS = [f"{name}:{flow.name}" for name in PROFILE_NAMES for flow in load_profile(name).flows]


def test_full_lifecycle_has_every_transition_of_the_table() -> None:
    arrows = diagram_of("lifecycle", full=True).arrows
    for (status, _), targets in TRANSITIONS.items():
        for target in targets:
            assert target is status or (status.value, target.value) in arrows
    stored = {status for status, _ in TRANSITIONS}
    assert set(diagram_of("lifecycle", full=True).transient) == {
        status.value for status in Status if status not in stored
    }


def test_plain_lifecycle_is_smaller_and_shows_no_failure() -> None:
    plain, full = diagram_of("lifecycle", full=False), diagram_of("lifecycle", full=True)
    assert len(plain.states) < len(full.states)
    assert not {"failed", "cancelled"} & set(plain.states)
    assert plain.final == ("complete",)


@pytest.mark.parametrize("reference", FLOWS)
def test_full_flow_is_exactly_the_profile(reference: str) -> None:
    name, _, flow_name = reference.partition(":")
    flow = load_profile(name).flow(flow_name)
    drawn = diagram_of(reference, full=True)
    assert drawn.states == flow.states
    assert set(drawn.arrows) == flow.transitions
    assert set(drawn.final) == set(flow.terminal)


@pytest.mark.parametrize("reference", FLOWS)
def test_plain_flow_keeps_only_states_that_can_complete(reference: str) -> None:
    name, _, flow_name = reference.partition(":")
    flow = load_profile(name).flow(flow_name)
    drawn = diagram_of(reference, full=False)
    bad = {state for state, outcome in flow.terminal.items() if outcome != "complete"}
    assert "complete" in drawn.states
    assert not bad & set(drawn.states)


@pytest.mark.parametrize("reference", ["lifecycle", *FLOWS])
@pytest.mark.parametrize("full", [False, True])
def test_every_arrow_is_drawn_between_known_states(reference: str, full: bool) -> None:
    diagram = diagram_of(reference, full)
    text, graph = mermaid(diagram), dot(diagram)
    for before, after in diagram.arrows:
        assert {before, after} <= set(diagram.states)
        arrow = f"{before.replace('-', '_')} --> {after.replace('-', '_')}"
        assert any(line.strip().partition(":")[0] == arrow for line in text.splitlines())
        assert f'"{before}" -> "{after}"' in graph


def test_unknown_name_lists_what_can_be_drawn() -> None:
    with pytest.raises(InvalidField, match=r"no profile 'ctx'.*cts.*lifecycle"):
        diagram_of("ctx", full=False)


def test_refresh_replaces_only_what_stands_between_the_markers() -> None:
    text = "a\n<!-- generated: htlease graph staged --full -->\nold\n<!-- end -->\nb\n"
    fresh = refresh(text)
    assert fresh.startswith("a\n<!-- generated: htlease graph staged --full -->\n```mermaid\n")
    assert fresh.endswith("```\n<!-- end -->\nb\n")
    assert "old" not in fresh
    assert refresh(fresh) == fresh


def test_diagrams_in_the_manual_are_the_generated_ones() -> None:
    pages = {page: page.read_text() for page in DOCS.rglob("*.md")}
    lifecycle = pages[DOCS / "lifecycle.md"]
    assert "<!-- generated: htlease graph lifecycle" in lifecycle
    stale = [str(page) for page, text in pages.items() if refresh(text) != text]
    assert not stale, "run `make diagrams`"
