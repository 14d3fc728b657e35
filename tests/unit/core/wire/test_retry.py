"""What a caller makes of an answer, and when it asks again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pytest

from htlease.errors import Refused, ServerUnavailable
from htlease.wire.retry import Clock, quoted, refused_from, send
from htlease.wire.transport import Answer, NoAnswer


class Prepared:
    """A transport with prepared answers; None is none."""

    def __init__(self, answers: Iterable[Answer | None]) -> None:
        self._answers = iter(answers)
        self.bodies: list[object] = []

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        self.bodies.append(body)
        answer = next(self._answers)
        if answer is None:
            raise NoAnswer("cut off")
        return answer


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def ask(*answers: Answer | None, seconds: float = 0.0) -> tuple[dict[str, Any], Prepared]:
    time, transport = Time(), Prepared(answers)
    clock = Clock(monotonic=lambda: time.now, sleep=time.sleep)
    return send(transport, clock, "POST", "/", {"request_id": "r"}, seconds)[0], transport


@pytest.mark.parametrize("name", ["a", "s+n.1~_-", "a#b", "50%", "a b", "ü/ä", "x:y@z=1,2"])
def test_names_are_encoded_as_the_library_encodes_them(name: str) -> None:
    assert quoted(name) == quote(name, safe="")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Answer(502, {}),
        Answer(404, {}),
        Answer(301, {}),
        Answer(429, {"code": "rate", "detail": "slowly"}),
        Answer(503, {"code": "overloaded", "detail": "x"}),
    ],
)
def test_what_is_no_answer_of_ours_is_asked_for_again(answer: Answer | None) -> None:
    with pytest.raises(ServerUnavailable):
        ask(answer)
    document, transport = ask(answer, Answer(200, {"a": 1}), seconds=5)
    assert document == {"a": 1}
    assert transport.bodies == [{"request_id": "r"}] * 2


def test_a_refusal_is_not_asked_for_again() -> None:
    problem = {"code": "lease-still-live", "detail": "no", "retry_after_seconds": 2.5}
    with pytest.raises(Refused) as refused:
        ask(Answer(409, problem), seconds=5)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("lease-still-live", 2.5)


def test_a_refusal_without_a_time_has_that_of_its_head() -> None:
    with pytest.raises(Refused) as refused:
        ask(Answer(409, {"code": "blocked", "detail": "no"}, 7.0))
    assert refused.value.retry_after_seconds == 7.0


@pytest.mark.parametrize("given", [None, "5", -1, True, float("inf"), float("nan"), [5], 1e12])
def test_a_time_that_nobody_can_wait_for_is_none(given: object) -> None:
    document = {"code": "blocked", "retry_after_seconds": given}
    assert refused_from(409, document).retry_after_seconds is None


def test_somebody_sent_elsewhere_is_told_what_to_name() -> None:
    with pytest.raises(ServerUnavailable, match="301: it sends elsewhere; name the server itself"):
        ask(Answer(301, {}))
