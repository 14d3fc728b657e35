"""State diagrams drawn from the tables that the code runs by: `state.TRANSITIONS` and profiles.

Plain diagrams show the few states of a good day; full ones show every state, with failure and
cancellation. A document keeps its diagrams current by `refresh`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from htlease.errors import InvalidField
from htlease.rules.profiles import Flow, find_flow
from htlease.rules.rollup import ROLLUP_ORDER
from htlease.rules.state import CLOSED, HELD, TRANSITIONS, Status

#: The name that stands for the life of a subjob, beside the profiles.
LIFECYCLE = "lifecycle"


@dataclass(frozen=True)
class Diagram:
    """States and the ways between them."""

    name: str
    initial: str
    states: tuple[str, ...]
    #: (from, to) -> labels, sorted; an arrow without a label has none.
    arrows: Mapping[tuple[str, str], tuple[str, ...]]
    final: tuple[str, ...]
    #: States that are seen but never stored.
    transient: tuple[str, ...] = ()


def diagram_of(reference: str, full: bool) -> Diagram:
    """Return the diagram of `lifecycle`, `PROFILE` or `PROFILE:FLOW`; raises InvalidField."""
    if reference == LIFECYCLE:
        return _lifecycle() if full else _rolled_up(_lifecycle())
    try:
        flow = find_flow(reference)
    except InvalidField as error:
        raise InvalidField("diagram", f"{error.problem}, and {LIFECYCLE}") from None
    return _flow(reference, flow, full)


def _lifecycle() -> Diagram:
    arrows: dict[tuple[str, str], set[str]] = {}
    for (status, event), targets in TRANSITIONS.items():
        for target in targets:
            if target is not status:
                label = re.sub(r"(?<!^)(?=[A-Z])", "-", event.__name__).lower()
                arrows.setdefault((status.value, target.value), set()).add(label)
    lapsed = Status.LAPSED.value
    for status in HELD:
        arrows[status.value, lapsed] = {"deadline-passed"}
    # What a lapsed lease allows is what the status under it allows.
    arrows[lapsed, Status.ACTIVE.value] = {"lease-renewed", "lease-acquired"}
    return Diagram(
        LIFECYCLE,
        Status.WAITING.value,
        tuple(status.value for status in Status),
        {pair: tuple(sorted(labels)) for pair, labels in arrows.items()},
        tuple(status.value for status in Status if status in CLOSED),
        (lapsed,),
    )


def _rolled_up(full: Diagram) -> Diagram:
    """Merge states that people call by one name, and leave failure and cancellation out."""
    name_of = dict(ROLLUP_ORDER)
    unwanted = {Status.FAILED.value, Status.CANCELLED.value}
    kept = [state for state in full.states if state not in unwanted]
    arrows: dict[tuple[str, str], tuple[str, ...]] = {}
    for before, after in full.arrows:
        pair = (name_of[before], name_of[after])
        if before in kept and after in kept and pair[0] != pair[1]:
            arrows[pair] = ()
    return Diagram(
        full.name,
        name_of[full.initial],
        tuple(dict.fromkeys(name_of[state] for state in kept)),
        arrows,
        tuple(name_of[state] for state in full.final if state in kept),
    )


def _flow(reference: str, flow: Flow, full: bool) -> Diagram:
    arrows = dict.fromkeys(flow.transitions, ())
    states = flow.states
    if not full:
        states = tuple(state for state in states if _can_complete(flow, state))
        arrows = {pair: () for pair in arrows if set(pair) <= set(states)}
    final = tuple(state for state in states if state in flow.terminal)
    return Diagram(reference, flow.initial, states, arrows, final)


def _can_complete(flow: Flow, state: str) -> bool:
    """Tell whether some way leads from a state to one that makes the subjob complete."""
    seen: set[str] = set()
    ahead = [state]
    while ahead:
        here = ahead.pop()
        if flow.terminal.get(here) == "complete":
            return True
        if here not in seen:
            seen.add(here)
            ahead += [after for before, after in flow.transitions if before == here]
    return False


def _ordered(diagram: Diagram) -> list[tuple[str, str]]:
    """Return the arrows in the order of the states, so that a drawing does not change by chance."""
    place = {state: index for index, state in enumerate(diagram.states)}
    return sorted(diagram.arrows, key=lambda pair: (place[pair[0]], place[pair[1]]))


def mermaid(diagram: Diagram) -> str:
    """Return a diagram as Mermaid's `stateDiagram-v2`."""
    # Mermaid takes a hyphen in an ID for the start of an arrow.
    ids = {state: state.replace("-", "_") for state in diagram.states}
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{state}" as {ids[state]}' for state in ids if ids[state] != state]
    lines.append(f"    [*] --> {ids[diagram.initial]}")
    for before, after in _ordered(diagram):
        labels = diagram.arrows[before, after]
        text = f": {', '.join(labels)}" if labels else ""
        lines.append(f"    {ids[before]} --> {ids[after]}{text}")
    lines += [f"    {ids[state]} --> [*]" for state in diagram.final]
    if diagram.transient:
        lines.append("    classDef transient stroke-dasharray: 5 5")
        lines += [f"    class {ids[state]} transient" for state in diagram.transient]
    return "\n".join(lines) + "\n"


def dot(diagram: Diagram) -> str:
    """Return a diagram in Graphviz's language."""
    lines = [f'digraph "{diagram.name}" {{', "    rankdir=LR;", "    node [shape=box];"]
    lines.append("    start [shape=point];")
    for state in diagram.states:
        style = ["peripheries=2"] if state in diagram.final else []
        style += ["style=dashed"] if state in diagram.transient else []
        lines.append(f'    "{state}"' + (f" [{', '.join(style)}];" if style else ";"))
    lines.append(f'    start -> "{diagram.initial}";')
    for before, after in _ordered(diagram):
        labels = diagram.arrows[before, after]
        text = ' [label="' + "\\n".join(labels) + '"]' if labels else ""
        lines.append(f'    "{before}" -> "{after}"{text};')
    return "\n".join([*lines, "}"]) + "\n"


_GENERATED = re.compile(
    r"(?P<head><!-- generated: htlease graph (?P<reference>[\w:.-]+)(?P<full> --full)? -->\n)"
    r".*?(?P<tail><!-- end -->)",
    re.DOTALL,
)


def refresh(text: str) -> str:
    """Return a Markdown text with every generated diagram drawn anew.

    A diagram stands between `<!-- generated: htlease graph NAME [--full] -->` and `<!-- end -->`.
    """

    def redraw(match: re.Match[str]) -> str:
        drawn = mermaid(diagram_of(match["reference"], bool(match["full"])))
        return f"{match['head']}```mermaid\n{drawn}```\n{match['tail']}"

    return _GENERATED.sub(redraw, text)
