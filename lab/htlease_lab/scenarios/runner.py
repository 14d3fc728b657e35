"""Runs scenarios: prepares one run, notes what was to be seen and what was, sums up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from htlease_lab.scenarios.environment import Environment
from htlease_lab.scenarios.workflow import Workflow


@dataclass(frozen=True)
class Fact:
    """Something that can be seen."""

    what: str
    wanted: Any
    seen: Any

    @property
    def is_right(self) -> bool:
        return bool(self.wanted == self.seen)

    def __str__(self) -> str:
        if self.is_right:
            return f"{self.what}: {in_words(self.seen)}"
        return f"{self.what}: {in_words(self.seen)}, but should be {in_words(self.wanted)}"


@dataclass
class ScenarioRun:
    """One scenario while it runs: what is done to a workflow, and what came of it."""

    environment: Environment
    watcher: str
    backend: str
    workflow: Workflow
    facts: list[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._before = self.workflow.tally()

    def say(self, text: str) -> None:
        """Tell what is done."""
        self.environment.say(f"  {text}")

    def fact(self, what: str, wanted: Any, seen: Any) -> None:
        """Note what was to be seen and what was."""
        fact = Fact(what, wanted, seen)
        self.facts.append(fact)
        self.environment.mark(str(fact), fact.is_right)

    def tally(self) -> dict[str, int]:
        """Return how often the transfer service was asked what since the run began."""
        return self.workflow.tally(self._before)

    def count(self) -> None:
        """Begin to count anew."""
        self._before = self.workflow.tally()

    def begin(self, *options: str) -> None:
        """Make the DAG with `htlease stage init` and submit it."""
        self.say(self.workflow.init(*options))
        self.workflow.submit()

    @property
    def wrong(self) -> list[Fact]:
        """Return what was not as it should be."""
        return [fact for fact in self.facts if not fact.is_right]


@dataclass(frozen=True)
class Scenario:
    """Something that can go wrong, and what then is to be seen."""

    name: str
    #: What happens, for people.
    title: str
    act: Callable[[ScenarioRun], None]
    #: Transfers are watched in it.
    uses_watchers: bool = True

    def run(self, environment: Environment, watcher: str, backend: str) -> ScenarioRun:
        """Run it in a workflow of its own, by a service that is in order but for being paused."""
        if backend == "globus":
            environment.add_globus()
        environment.service.repair(paused=True)
        environment.number += 1
        how = f"  (watcher {watcher}, back-end {backend})" if self.uses_watchers else ""
        environment.head(f"{self.name}: {self.title}{how}")
        workflow = Workflow(environment, f"{self.name}-{environment.number}")
        workflow.write_all(watcher, backend)
        run = ScenarioRun(environment, watcher, backend, workflow)
        self.act(run)
        return run


@dataclass
class Summary:
    """What a number of runs came to."""

    rows: list[tuple[str, int, int, float]] = field(default_factory=list)

    def add(self, scenario: Scenario, run: ScenarioRun, began_at: float) -> None:
        """Add a run that began then, on the monotonic clock."""
        seconds = time.monotonic() - began_at
        name = f"{scenario.name} {run.watcher}" if scenario.uses_watchers else scenario.name
        self.rows.append((name, len(run.facts), len(run.wrong), seconds))

    @property
    def wrong(self) -> int:
        return sum(wrong for _, _, wrong, _ in self.rows)

    def lines(self) -> list[str]:
        """Return a line for each run."""
        width = max(len(name) for name, *_ in self.rows)
        return [
            f"{name:{width}}  {facts:3} facts  {f'{wrong} WRONG' if wrong else 'all right'}"
            f"  {seconds:4.0f} s"
            for name, facts, wrong, seconds in self.rows
        ]


def in_words(value: Any) -> str:
    """Return a value as a person writes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.strip() or "an empty text"
    if isinstance(value, Sequence):
        return " -> ".join(map(in_words, value)) or "none"
    if isinstance(value, Collection):
        return ", ".join(sorted(map(in_words, value))) or "none"
    return str(value)
