"""What clients see of a server that is killed, frozen and asked over a bad network, explained.

`HTLEASE_CHECK_SECONDS` and `HTLEASE_CHECK_SEED` make the run longer, or another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.checker.broken import OF_POSTGRESQL, RULES
from tests.checker.line import FAULTS
from tests.checker.run import Run, Settings, run
from tests.checker.sites import PostgresSite, SqliteSite

SECONDS = float(os.environ.get("HTLEASE_CHECK_SECONDS", "20"))
SEED = int(os.environ.get("HTLEASE_CHECK_SEED", "1"))
#: A broken rule shows within seconds, unless the draw is unlucky.
BROKEN_SECONDS = 2.0
BROKEN_RUNS_MAX = 15

NewSite = Callable[..., SqliteSite | PostgresSite]


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[NewSite]:
    made: list[SqliteSite | PostgresSite] = []

    def new(broken: str | None, store: str = "sqlite") -> SqliteSite | PostgresSite:
        kind = SqliteSite if store == "sqlite" else PostgresSite
        made.append(kind(tmp_path / "site", broken))
        return made[-1]

    yield new
    for site in made:
        site.close()


def assert_it_showed_something(seen: Run) -> None:
    """A run in which nothing happens is explained easily."""
    assert len(seen.recordings) > 30 and len(seen.outages) > 3, seen
    assert {"expired", "abandoned", "exited", "same-slot", "immediate"} <= set(seen.grants), seen
    refusals = {"lease-still-live", "superseded-attempt", "stale-fence", "subjob-closed"}
    assert {"ok", "request-id-reused", *refusals} <= set(seen.answers), seen
    assert set(FAULTS) <= set(seen.faults), seen


def test_everything_that_a_disturbed_server_answered_is_explained_by_the_rules(
    new_site: NewSite,
) -> None:
    seen = run(new_site(None), Settings(SEED, SECONDS))
    print(seen)
    assert seen.findings() == []
    assert_it_showed_something(seen)


def test_everything_that_two_servers_on_a_disturbed_database_answered_is_explained_too(
    new_site: NewSite,
) -> None:
    """Servers are killed, stopped and frozen, and the database crashes and restarts."""
    seen = run(new_site(None, "postgresql"), Settings(SEED, SECONDS))
    print(seen)
    assert seen.findings() == []
    assert len(seen.recordings) > 30 and seen.outages, seen
    assert {"exited", "abandoned", "immediate"} <= set(seen.grants), seen


#: Broken rule -> by what it gives itself away.
SHOWN_BY = {
    "skip_the_fence_check": "rules",
    "ignore_the_nonce": "rules",
    "repeat_a_fence": "holders",
    "grant_while_live": "holders",
    "let_older_attempts_in": "rules",
    "revive_what_was_taken": "answers",
    "shorten_leases": "holders",
    "forget_request_ids": "rules",
    "do_once_phases_twice": "rules",
    "end_leases_at_a_restart": "holders",
    "answer_before_it_is_durable": "answers",
    "commit_without_the_disk": "answers",
}


def test_every_broken_rule_is_tried() -> None:
    assert SHOWN_BY.keys() == RULES.keys()


@pytest.mark.parametrize("rule", SHOWN_BY)
def test_a_rule_that_is_broken_on_purpose_is_found_out(new_site: NewSite, rule: str) -> None:
    site = new_site(rule, "postgresql" if rule in OF_POSTGRESQL else "sqlite")
    kinds: set[str] = set()
    for seed in range(SEED, SEED + BROKEN_RUNS_MAX):
        seen = run(site, Settings(seed, BROKEN_SECONDS))
        kinds |= {finding.kind for finding in seen.findings()}
        if SHOWN_BY[rule] in kinds:
            return
    pytest.fail(f"{rule} was not found in {BROKEN_RUNS_MAX} runs, only {kinds}: {seen}")
