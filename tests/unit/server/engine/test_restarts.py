"""Deadlines over servers that start again and again (rule 8): one outage, one ttl of uptime."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htlease_server.engine.downtime import DowntimeCorrection
from htlease_server.store.base import MaintenanceRow, Run

TTL = 10.0


def deadline(*runs: tuple[float, float], renewed_at: float, now: float = 1e9) -> float:
    return DowntimeCorrection([Run(*run) for run in runs]).deadline(renewed_at + TTL, TTL, now)


@pytest.mark.parametrize(
    ("name", "runs", "renewed_at", "ends_at"),
    [
        ("no restart", [(0, 50)], 5, 15),
        ("one start gives a ttl", [(0, 8), (100, 100)], 5, 110),
        ("what had run out stays so", [(0, 16), (100, 100)], 5, 15),
        ("a second start in a ttl only stretches it", [(0, 8), (100, 104), (200, 200)], 5, 206),
        ("and a third", [(0, 8), (100, 104), (200, 205), (300, 300)], 5, 301),
        ("until its ttl of uptime is over", [(0, 8), (100, 104), (200, 207), (300, 300)], 5, 206),
        ("a start after a ttl of uptime finds it ended", [(0, 8), (100, 111), (200, 200)], 5, 110),
        ("no uptime, no end", [(0, 8), (100, 100), (200, 200), (300, 300)], 5, 310),
        ("heard after the first start: a ttl from the next", [(0, 8), (100, 104), (200, 200)], 102, 210),
        ("heard, then stretched", [(0, 8), (100, 104), (200, 204), (300, 300)], 102, 306),
        ("a long lease that was short of time", [(0, 8), (9, 9)], 5, 19),
        ("runs whose signs of life overlap the next", [(0, 8), (100, 90), (105, 95), (110, 110)], 5, 120),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_when_a_lease_ends(
    name: str, runs: list[tuple[float, float]], renewed_at: float, ends_at: float
) -> None:
    assert deadline(*runs, renewed_at=renewed_at) == ends_at


def test_a_window_in_an_outage_is_no_restart() -> None:
    runs = [Run(0, 8), Run(100, 104), Run(200, 200)]
    window = MaintenanceRow(102.0, 150.0, None, "admin")
    # The window gives a ttl from its end, of which the gap behind it takes nothing.
    assert DowntimeCorrection(runs, [window]).deadline(15.0, TTL, 1e9) == 160 + (200 - 150)


#: Seconds that a run lives, what of it has no sign of life, and how long nobody is there after it.
_RUNS = st.lists(
    st.tuples(
        st.integers(0, 15).map(float), st.integers(0, 3).map(float), st.integers(0, 40).map(float)
    ),
    min_size=1,
    max_size=8,
)


def runs_of(lives: list[tuple[float, float, float]]) -> list[Run]:
    """Return a first run of ten seconds, and those that follow; the last one goes on."""
    runs, now = [Run(0.0, 10.0)], 10.0
    for lives_seconds, unsigned_seconds, away_seconds in lives:
        now += away_seconds
        runs.append(Run(now, now + max(0.0, lives_seconds - unsigned_seconds)))
        now += lives_seconds
    return runs


def uptime_between(runs: list[Run], since: float, until: float) -> float:
    return sum(
        max(0.0, min(until, run.alive_at) - max(since, run.started_at)) for run in runs[:-1]
    ) + max(0.0, until - max(since, runs[-1].started_at))


@given(_RUNS)
def test_a_dead_holder_keeps_its_lease_for_one_ttl_of_uptime(
    lives: list[tuple[float, float, float]],
) -> None:
    runs = runs_of(lives)
    ends_at = DowntimeCorrection(runs).deadline(5.0 + TTL, TTL, 1e9)
    assert uptime_between(runs, runs[1].started_at, ends_at) == pytest.approx(TTL)


@given(_RUNS, st.integers(0, 8))
def test_a_holder_that_was_heard_in_a_run_has_a_ttl_from_the_next_start(
    lives: list[tuple[float, float, float]], heard: int
) -> None:
    """However many of its later renewals were lost in the crash."""
    runs = runs_of(lives)
    run = runs[min(heard, len(runs) - 1)]
    for before, after in itertools.pairwise(runs):
        if before is run and before.alive_at > before.started_at - TTL:
            known = runs[: runs.index(after) + 1]
            ends_at = DowntimeCorrection(known).deadline(before.started_at + TTL, TTL, 1e9)
            if before.started_at + TTL > before.alive_at:
                assert ends_at >= after.started_at + TTL


@given(_RUNS, st.integers(-9, 9).map(float))
def test_no_start_takes_back_what_was_promised(
    lives: list[tuple[float, float, float]], renewed_at: float
) -> None:
    runs = runs_of(lives)
    told = renewed_at + TTL
    for number in range(1, len(runs) + 1):
        ends_at = DowntimeCorrection(runs[:number]).deadline(renewed_at + TTL, TTL, 1e9)
        assert ends_at >= told
        told = ends_at
