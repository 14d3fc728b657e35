"""What a busy server holds, for how long, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.auth.rate_limit import BURST_SECONDS, RateLimiter
from htlease_server.engine.batch import PendingRequest, QueueFull
from htlease_server.engine.commit.priority_queue import NEW_WORK_AT_ONCE, PriorityQueue
from htlease_server.http import server
from htlease_server.http.messages import Answer, Request
from htlease_server.http.server import Connection, HttpServer
from htlease_server.models.request_models import CommandRequest

NONCE = "nonce-of-a-test-0123456789"


class Transport:
    """The server's end of a connection."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = self.is_ended = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    close = abort

    def is_closing(self) -> bool:
        return self.is_aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high < 10_000 and low == 0, "what the kernel does not take has to be heard of"

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return 1000


class Room:
    """A server under a clock that the test moves; requests wait until they are answered."""

    def __init__(self, connections_max: int = 100) -> None:
        self.now = 1000.0
        self.asked: list[tuple[Request, Connection]] = []
        self._soon: list[Callable[[], None]] = []
        self.http_server = HttpServer(
            lambda http_server: self._ask, lambda: self.now, connections_max, self._soon.append
        )

    def _ask(self, request: Request, connection: Connection) -> None:
        self.asked.append((request, connection))

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.http_server), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport

    def take_turns(self) -> None:
        """Do what the event loop would do next."""
        while self._soon:
            self._soon.pop(0)()

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.http_server.sweep()


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"P", b""),
        (b"POST /x HTTP/1.1\r\nhost: x\r\n", b"x"),
        (b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{", b"x"),
    ],
)
def test_a_request_has_to_be_complete_in_time_however_it_dribbles(
    start: bytes, drop: bytes
) -> None:
    room = Room()
    connection, transport = room.connect()
    connection.received(start)
    for _ in range(int(server.REQUEST_SECONDS) - 1):
        room.later(1.0)
        connection.received(drop)
    assert not transport.is_aborted
    room.later(2.0)
    assert transport.is_aborted and not room.asked


HEALTH = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def test_an_idle_connection_is_kept_for_a_while_and_one_that_waits_for_longer() -> None:
    room = Room()
    (idle, idle_transport), (pending, waiting_transport) = room.connect(), room.connect()
    for connection in (idle, pending):
        connection.received(HEALTH)
    room.asked[0][1].answer(Answer(200, b"{}"))
    room.later(server.KEEP_ALIVE_SECONDS - 1)
    assert not idle_transport.is_aborted
    room.later(2.0)
    assert idle_transport.is_aborted and not waiting_transport.is_aborted
    room.asked[1][1].answer(Answer(200, b"{}"))
    assert waiting_transport.written.startswith(b"HTTP/1.1 200")


def test_who_connects_and_says_nothing_has_a_deadline_as_has_who_waits_for_an_answer() -> None:
    room = Room()
    (_, silent), (connection, pending) = room.connect(), room.connect()
    connection.received(HEALTH)
    room.later(server.REQUEST_SECONDS + 1)
    assert silent.is_aborted and not pending.is_aborted
    room.later(server.ANSWER_SECONDS)
    assert pending.is_aborted
    room.asked[0][1].answer(Answer(200, b"{}"))
    assert pending.written == b"", "nobody is there"


def test_idle_connections_make_room_and_busy_ones_do_not() -> None:
    room = Room(connections_max=3)
    busy = [room.connect() for _ in range(2)]
    for connection, _ in busy:
        connection.received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    idle = room.connect()[1]
    late, late_transport = room.connect()
    assert idle.is_aborted and late_transport.written == b""
    assert room.http_server.evicted == 1
    late.received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    refused = room.connect()[1]
    assert refused.written.startswith(b"HTTP/1.1 503") and b"retry-after" in refused.written
    assert room.http_server.rejected == 1
    assert not any(transport.is_aborted for _, transport in busy)


def test_all_bodies_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELD_MAX_BYTES", 5000)
    room = Room()
    head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n"
    lines = [room.connect() for _ in range(3)]
    for connection, _ in lines:
        connection.received(head + b"x" * 1999)
    written = [transport.written for _, transport in lines]
    assert room.http_server.refused_for_memory == 1
    assert written[:2] == [b"", b""] and written[2].startswith(b"HTTP/1.1 503")
    for connection, _ in lines:
        connection.connection_lost(None)
    assert room.http_server.held_bytes == 0


def test_an_answer_that_nobody_reads_counts_and_ends_the_connection() -> None:
    room = Room()
    connection, transport = room.connect()
    connection.received(HEALTH)
    connection.pause_writing()
    connection.answer(Answer(200, b"{}"))
    assert room.http_server.held_bytes == 1000
    connection.received(HEALTH)
    room.take_turns()
    assert len(room.asked) == 1 and not transport.is_reading, "begun with an answer to nobody"
    room.later(server.UNREAD_SECONDS + 1)
    assert transport.is_aborted and room.http_server.held_bytes == 0


def test_an_answer_that_is_read_late_is_followed_by_the_next() -> None:
    room = Room()
    connection, transport = room.connect()
    connection.received(HEALTH)
    connection.pause_writing()
    connection.answer(Answer(200, b"{}"))
    connection.received(HEALTH)
    connection.resume_writing()
    room.take_turns()
    assert len(room.asked) == 2
    connection.answer(Answer(200, b"{}"))
    assert transport.written.count(b"200 OK") == 2 and transport.is_reading
    room.later(server.KEEP_ALIVE_SECONDS - 1)
    assert not transport.is_aborted
    room.later(2)
    assert transport.is_aborted


def test_thousands_of_requests_in_one_piece_are_answered_one_after_the_other() -> None:
    """Those that are refused at once are no deeper in the stack than the first."""
    answered = 0

    def refuse(request: Request, connection: Connection) -> None:
        nonlocal answered
        answered += 1
        connection.answer(Answer(404, b"{}"))

    room = Room()
    room.http_server.handle = refuse
    connection, transport = room.connect()
    connection.received(HEALTH * 5000)
    assert answered == 1, "others have their turn first"
    room.take_turns()
    assert answered == 5000 and transport.written.count(b"HTTP/1.1 404") == 5000
    assert room.http_server.held_bytes == 0 and transport.is_reading


def test_connections_take_turns() -> None:
    room = Room()
    order = []

    def answer(request: Request, connection: Connection) -> None:
        order.append(connection)
        connection.answer(Answer(200, b"{}"))

    room.http_server.handle = answer
    (one, _), (other, _) = room.connect(), room.connect()
    one.received(HEALTH * 3)
    other.received(HEALTH * 3)
    room.take_turns()
    assert order == [one, other] * 3


def test_what_fails_on_one_connection_ends_no_other() -> None:
    room = Room()
    (bad, bad_transport), (good, good_transport) = room.connect(), room.connect()

    def handle(request: Request, connection: Connection) -> None:
        if connection is bad and len(room.asked) == 2:
            raise RuntimeError("a mistake of ours")
        room.asked.append((request, connection))

    room.http_server.handle = handle
    for connection in (bad, good):
        connection.received(HEALTH * 2)
    for _, connection in list(room.asked):
        connection.answer(Answer(200, b"{}"))
    room.take_turns()
    assert bad_transport.is_aborted and not good_transport.is_aborted
    assert [connection for _, connection in room.asked] == [bad, good, good]


def test_a_client_that_sends_no_more_gets_the_answers_to_what_it_has_sent() -> None:
    room = Room()
    connection, transport = room.connect()
    connection.received(HEALTH * 2 + b"GET / HT")
    assert connection.eof_received()
    connection.answer(Answer(200, b"{}"))
    assert not transport.is_aborted
    room.take_turns()
    connection.answer(Answer(200, b"{}"))
    assert transport.written.count(b"200 OK") == 2
    assert transport.is_aborted, "half a request is none"


def test_who_sends_no_more_and_is_owed_nothing_is_left_alone() -> None:
    room = Room()
    connection, _ = room.connect()
    assert not connection.eof_received()
    connection, transport = room.connect()
    connection.received(HEALTH)
    assert connection.eof_received()
    connection.answer(Answer(200, b"{}"))
    assert b"200 OK" in transport.written and transport.is_aborted


def test_who_keeps_memory_for_long_gives_it_up_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELD_MAX_BYTES", 5000)
    room = Room()
    large = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n" + b"x" * 4000
    (slow, slow_transport), (late, late_transport) = room.connect(), room.connect()
    slow.received(large)
    room.later(server.SLOW_SECONDS + 1)
    late.received(large)
    assert slow_transport.is_aborted and late_transport.written == b""
    assert room.http_server.evicted == 1
    # What is small and whole is served, however little memory there is.
    last, _ = room.connect()
    last.received(large)
    whole, _ = room.connect()
    whole.received(HEALTH)
    assert [connection for _, connection in room.asked] == [whole]


# ------------------------------------------------------------ whose turn it is


def pending(command: m.Command) -> PendingRequest:
    future: Any = asyncio.Future(loop=asyncio.new_event_loop())
    return PendingRequest(
        SubjobKey("w", "s"), CommandRequest(command, "r", None, b""), "admin", future
    )


def test_renewals_come_before_writes_and_writes_before_new_work() -> None:
    queue = PriorityQueue()
    newcomer, write, renewal = m.Acquire(NONCE), m.Enter(1, NONCE, "run"), m.Renew(1, NONCE)
    for command in (newcomer, write, renewal, newcomer, renewal):
        queue.add(pending(command))
    commands = [one.sent.command for one in queue.next(100)]  # type: ignore[union-attr]
    assert commands == [renewal, renewal, write, newcomer, newcomer]


def test_a_flood_of_new_work_fills_its_own_room_and_gets_a_part_of_a_batch() -> None:
    queue = PriorityQueue(renewals_max=2, writes_max=NEW_WORK_AT_ONCE + 1)
    for _ in range(NEW_WORK_AT_ONCE + 1):
        queue.add(pending(m.Acquire(NONCE)))
    with pytest.raises(QueueFull):
        queue.add(pending(m.Acquire(NONCE)))
    queue.add(pending(m.Renew(1, NONCE)))
    assert queue.refused == {"renewals": 0, "writes": 0, "new-work": 1}
    assert len(list(queue.next(1000))) == NEW_WORK_AT_ONCE + 1
    assert queue.waiting == 1


def test_a_token_may_burst_and_then_send_at_its_rate() -> None:
    now = 0.0
    rate_limiter = RateLimiter(2.0, lambda: now)
    burst = int(2 * BURST_SECONDS)
    assert [rate_limiter.wait_seconds("a") for _ in range(burst)] == [0.0] * burst
    assert rate_limiter.wait_seconds("a") == pytest.approx(0.5)
    assert rate_limiter.wait_seconds("b") == 0.0
    now += 0.5
    assert rate_limiter.wait_seconds("a") == 0.0
    assert rate_limiter.wait_seconds("a") > 0.0
