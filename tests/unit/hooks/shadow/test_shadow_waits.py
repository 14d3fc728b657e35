"""How long the shadow's hook waits for a flag, under a clock that its sleeps move."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from htlease_hooks.shadow import shadow_prepare

AD = 'GlobalJobId = "ap#7.0#1"\nClusterId = 7\nProcId = 0\n'
BLOCKED = (409, {"code": "blocked", "detail": "run needs hpss, which is down"})
GRANTED = (200, {"grant": "packed"})


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(shadow_prepare, "time", clock)
    return slept


def prepared(monkeypatch: pytest.MonkeyPatch, answers: list[Any], wait: float) -> Any:
    monkeypatch.setattr(shadow_prepare, "post", lambda *_: answers.pop(0))
    return shadow_prepare.prepare(shadow_prepare.Options("/s", "chirp:", 10.0, wait, "run"), AD)


def test_a_start_goes_on_when_the_flag_is_raised_in_time(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = prepared(monkeypatch, [BLOCKED, BLOCKED, GRANTED], 25.0)
    assert given.code == 0
    assert "HTLeaseGrant" in given.attributes
    assert slept == [10.0, 10.0]


def test_it_waits_no_longer_than_it_may(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = prepared(monkeypatch, [BLOCKED] * 9, 25.0)
    assert (given.code, sum(slept)) == (604, 25.0)
    assert given.message == "job 7.0: run needs hpss, which is down"


def test_nothing_else_is_waited_for_in_that_way(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = (409, {"code": "lease-still-live", "detail": "live"})
    assert prepared(monkeypatch, [live, GRANTED], 25.0).code == 601
    assert slept == []
