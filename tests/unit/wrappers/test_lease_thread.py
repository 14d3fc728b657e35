"""What the state of the lease means for a payload, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.lease_client import Lease, LeaseClient
from htlease.wire.retry import Clock
from htlease.wire.transport import Answer, NoAnswer
from htlease_wrapper.console import Console
from htlease_wrapper.details import DetailsFile
from htlease_wrapper.lease_thread import LeaseThread
from htlease_wrapper.queued_command import Verdict

GRANT = m.Grant(7, 1, "ap1#1.0#1@1.1", 1, 100.0, "run", (), False, None, None)


class Server:
    """A transport that answers what the test says and remembers what it was sent."""

    def __init__(self) -> None:
        self.answer: Answer | None = Answer(200, {"expires_in_seconds": 100.0, "order": "continue"})
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.is_asked: Callable[[], None] = lambda: None

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        assert body is not None
        self.is_asked()
        self.calls.append((path.rpartition("/")[2], body))
        if self.answer is None:
            raise NoAnswer("cut off")
        return self.answer


class Stage:
    """A lease thread that is not started: `step` does what the thread would do next."""

    def __init__(self, sandbox: Path) -> None:
        self.now = 1000.0
        self.server = Server()
        self.wakes = 0
        self.details = DetailsFile(sandbox)
        clock = Clock(monotonic=lambda: self.now, random=lambda: 0.5)
        client = LeaseClient(self.server, SubjobKey("w", "s"), clock)
        lease = Lease(GRANT, "n" * 32, 100.0, self.now + 98.0)
        self.lease_thread = LeaseThread(
            lambda: client, lease, clock, self._wake, Console(), self.details
        )

    def _wake(self) -> None:
        self.wakes += 1

    def step(self) -> None:
        self.lease_thread._step()

    def save(self, text: str) -> None:
        new = self.details.path.with_name("new")
        new.write_text(text)
        new.replace(self.details.path)

    @property
    def sent(self) -> list[str]:
        return [call for call, _ in self.server.calls]


BLOCKED = Answer(409, {"code": "blocked", "detail": "needs hpss", "flag": "hpss"})


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A lease of 100 s, granted just now and relied on for 98 of them."""
    return Stage(tmp_path)


def test_an_exclusive_payload_stands_still_before_the_deadline(stage: Stage) -> None:
    assert stage.lease_thread.seconds_to_change(is_exclusive=True) == 96.0
    stage.now += 95.9
    assert stage.lease_thread.verdict(is_exclusive=True) is Verdict.GO_ON
    stage.now += 0.2
    assert stage.lease_thread.verdict(is_exclusive=True) is Verdict.STAND_STILL
    assert stage.lease_thread.seconds_to_change(is_exclusive=True) is None


def test_another_payload_goes_on_past_the_deadline(stage: Stage) -> None:
    stage.now += 10_000
    assert stage.lease_thread.verdict(is_exclusive=False) is Verdict.GO_ON
    assert stage.lease_thread.seconds_to_change(is_exclusive=False) is None


def test_renewal_comes_after_a_quarter_and_moves_the_deadline(stage: Stage) -> None:
    stage.now += 24.0
    stage.step()
    assert stage.sent == []
    stage.now += 1.0
    stage.step()
    assert stage.sent == ["renew"]
    assert stage.lease_thread.lease.deadline == 1025.0 + 98.0


def test_the_deadline_counts_from_before_the_request_was_sent(stage: Stage) -> None:
    def slow() -> None:
        stage.now += 9.0

    stage.server.is_asked = slow
    stage.now += 25.0
    stage.step()
    assert stage.lease_thread.lease.deadline == 1025.0 + 98.0


@pytest.mark.parametrize(("seconds", "is_news"), [(0.0, False), (2.9, False), (3.0, True)])
def test_one_lost_reply_is_no_news(
    stage: Stage, capfd: pytest.CaptureFixture[str], seconds: float, is_news: bool
) -> None:
    stage.now += 26
    answer, stage.server.answer = stage.server.answer, None
    stage.step()
    stage.now += seconds
    if seconds:
        stage.step()
    stage.now += 10
    stage.server.answer = answer
    stage.step()
    assert stage.lease_thread.absence.since is None
    said = capfd.readouterr().err
    assert ("updates are kept and sent later" in said) == is_news
    assert ("answers again" in said) == is_news


def test_updates_stay_in_order_while_the_server_is_away(stage: Stage) -> None:
    stage.server.answer = None
    queued_commands = [
        stage.lease_thread.enqueue(m.Complete(7, "n" * 32, "one")),
        stage.lease_thread.enqueue(m.Enter(7, "n" * 32, "two")),
    ]
    for _ in range(5):
        stage.now += 20.0
        stage.step()
    assert stage.lease_thread.absence.since is not None
    assert not any(queued.is_answered for queued in queued_commands)
    stage.server.answer = Answer(200, {"expires_in_seconds": 100.0, "order": "continue"})
    stage.server.calls.clear()
    stage.now += 20.0
    for _ in range(3):
        stage.step()
    assert [call for call in stage.sent if call != "renew"] == ["complete", "enter"]
    assert stage.sent[0] == "renew"  # first of all, the lease
    assert stage.lease_thread.absence.since is None and stage.lease_thread.unsent() == 0


def test_only_the_newest_of_unsent_details_is_sent(stage: Stage) -> None:
    for text in ("one", "two", "three"):
        stage.save(text)
        stage.lease_thread.notice_details()
    assert stage.lease_thread.unsent() == 1
    stage.step()
    assert [body.get("details") for _, body in stage.server.calls] == ["three"]


def test_details_do_not_overtake_the_phase_that_they_belong_to(stage: Stage) -> None:
    stage.save("of one")
    stage.lease_thread.notice_details()
    stage.lease_thread.enqueue(m.Enter(7, "n" * 32, "two"))
    stage.save("of two")
    stage.lease_thread.notice_details()
    for _ in range(3):
        stage.step()
    assert stage.sent == ["renew", "enter", "renew"]
    assert [body.get("details") for _, body in stage.server.calls] == ["of one", None, "of two"]


@pytest.mark.parametrize(
    ("document", "verdict", "may_abandon"),
    [
        ({"order": "stop"}, Verdict.END, True),
        ({"order": "cancel", "outcome": "cancelled"}, Verdict.END, False),
        ({"order": "stop", "outcome": "complete"}, Verdict.GO_ON, None),
    ],
)
def test_orders_are_obeyed(
    stage: Stage, document: dict[str, Any], verdict: Verdict, may_abandon: bool | None
) -> None:
    stage.server.answer = Answer(200, {"expires_in_seconds": 50.0, **document})
    stage.now += 30.0
    stage.step()
    assert stage.lease_thread.verdict(is_exclusive=False) is verdict
    assert (stage.lease_thread.loss.may_abandon if stage.lease_thread.loss else None) is may_abandon
    assert stage.wakes > 0
    stage.now += 1000.0
    stage.step()
    assert stage.sent == ["renew"]  # in each case there is nothing more to renew


@pytest.mark.parametrize("code", ["superseded-attempt", "stale-fence", "unknown-subjob"])
def test_a_lease_that_is_lost_ends_the_payload_without_a_word_to_its_new_holder(
    stage: Stage, code: str
) -> None:
    stage.server.answer = Answer(410, {"code": code, "detail": "no"})
    stage.now += 30.0
    stage.step()
    loss = stage.lease_thread.loss
    assert loss is not None and not loss.may_abandon and loss.exit_code == 76


def test_a_refused_token_is_no_reason_to_end_a_payload(stage: Stage) -> None:
    stage.server.answer = Answer(401, {"code": "unauthorized", "detail": "expired"})
    stage.now += 30.0
    stage.step()
    assert stage.lease_thread.verdict(is_exclusive=False) is Verdict.GO_ON
    assert stage.lease_thread.absence.since is not None


def test_details_that_the_server_refuses_are_dropped(stage: Stage) -> None:
    stage.save("odd")
    stage.lease_thread.notice_details()
    stage.server.answer = Answer(400, {"code": "invalid", "detail": "details: no"})
    stage.step()
    assert stage.lease_thread.unsent() == 0
    assert stage.lease_thread.verdict(is_exclusive=False) is Verdict.GO_ON


@pytest.mark.parametrize("end", [m.Exited, m.Abandon])
def test_an_end_whose_answer_was_lost_is_sent_again_and_nothing_is_renewed(
    stage: Stage, end: type[m.Exited] | type[m.Abandon]
) -> None:
    """The server may have recorded it, and would refuse a renewal as one of a lost lease."""
    stage.server.answer = None
    stage.lease_thread.enqueue(end(7, "n" * 32))
    stage.step()
    stage.now += 30  # past the time for a renewal
    stage.server.answer = Answer(200, {"status": "exited", "fence": 7, "outcome": None})
    stage.step()
    stage.step()
    word = "exited" if end is m.Exited else "abandon"
    assert stage.sent == [word, word]
    assert stage.lease_thread.loss is None


def test_a_phase_that_a_flag_holds_back_costs_no_lease(stage: Stage) -> None:
    stage.server.answer = BLOCKED
    queued = stage.lease_thread.enqueue(m.Enter(7, "n" * 32, "run"))
    stage.step()
    assert queued.blocked_by is not None and queued.blocked_by.flag == "hpss"
    assert stage.lease_thread.loss is None and stage.lease_thread.unsent() == 0


def test_a_phase_that_began_while_its_entering_was_under_way_is_told_as_begun(
    stage: Stage,
) -> None:
    stage.server.answer = BLOCKED
    queued = stage.lease_thread.enqueue(m.Enter(7, "n" * 32, "run"))
    underway = m.Enter(7, "n" * 32, "run", is_underway=True)
    stage.server.is_asked = lambda: stage.lease_thread.replace(queued, underway)
    stage.step()
    assert not queued.is_answered, "the server heard of a phase that had not begun"
    stage.server.answer = Answer(200, {"name": "run"})
    stage.step()
    assert queued.answer is not None
    assert [body["is_underway"] for call, body in stage.server.calls if call == "enter"] == [
        False,
        True,
    ]
