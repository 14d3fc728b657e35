"""What a busy server holds, for how long, and whose turn it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from htlease import messages as m
from htlease.attempt import SubjobKey
from htlease_server import http1
from htlease_server.bodies import Sent
from htlease_server.http1 import Connection, Hall
from htlease_server.lanes import NEWCOMERS_AT_ONCE, Lanes
from htlease_server.throttle import BURST_SECONDS, Throttle
from htlease_server.turn import QueueFull, Waiting
from htlease_server.wire import Answer, Request

NONCE = "nonce-of-a-test-0123456789"


class Transport:
    """The server's end of a connection."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    close = abort

    def is_closing(self) -> bool:
        return self.is_aborted

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return 1000


class Room:
    """A hall under a clock that the test moves; requests wait until they are answered."""

    def __init__(self, connections_max: int = 100) -> None:
        self.now = 1000.0
        self.asked: list[tuple[Request, Connection]] = []
        self.hall = Hall(lambda hall: self._ask, lambda: self.now, connections_max)

    def _ask(self, request: Request, connection: Connection) -> None:
        self.asked.append((request, connection))

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.hall), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.hall.sweep()


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"P", b""),
        (b"POST /x HTTP/1.1\r\nhost: x\r\n", b"x"),
        (b"POST /x HTTP/1.1\r\ncontent-length: 99\r\n\r\n{", b"x"),
    ],
)
def test_a_request_has_to_be_complete_in_time_however_it_dribbles(
    start: bytes, drop: bytes
) -> None:
    room = Room()
    connection, transport = room.connect()
    connection.data_received(start)
    for _ in range(int(http1.REQUEST_SECONDS) - 1):
        room.later(1.0)
        connection.data_received(drop)
    assert not transport.is_aborted
    room.later(2.0)
    assert transport.is_aborted and not room.asked


def test_an_idle_connection_is_kept_for_a_while_and_one_that_waits_for_ever() -> None:
    room = Room()
    idle, waiting = room.connect()[1], room.connect()
    waiting[0].data_received(b"GET / HTTP/1.1\r\n\r\n")
    room.later(http1.KEEP_ALIVE_SECONDS - 1)
    assert not idle.is_aborted
    room.later(2.0)
    assert idle.is_aborted and not waiting[1].is_aborted
    room.asked[0][1].answer(Answer(200, b"{}"))
    assert waiting[1].written.startswith(b"HTTP/1.1 200")


def test_idle_connections_make_room_and_busy_ones_do_not() -> None:
    room = Room(connections_max=3)
    busy = [room.connect() for _ in range(2)]
    for connection, _ in busy:
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    idle = room.connect()[1]
    late, late_transport = room.connect()
    assert idle.is_aborted and late_transport.written == b""
    assert room.hall.evicted == 1
    late.data_received(b"GET / HTTP/1.1\r\n\r\n")
    refused = room.connect()[1]
    assert refused.written.startswith(b"HTTP/1.1 503") and b"retry-after" in refused.written
    assert room.hall.turned_away == 1
    assert not any(transport.is_aborted for _, transport in busy)


def test_all_bodies_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HELD_MAX_BYTES", 5000)
    room = Room()
    head = b"POST /x HTTP/1.1\r\ncontent-length: 2000\r\n\r\n"
    lines = [room.connect() for _ in range(3)]
    for connection, _ in lines:
        connection.data_received(head + b"x" * 1999)
    written = [transport.written for _, transport in lines]
    assert room.hall.overfilled == 1
    assert written[:2] == [b"", b""] and written[2].startswith(b"HTTP/1.1 503")
    for connection, _ in lines:
        connection.connection_lost(None)
    assert room.hall.held_bytes == 0


def test_an_answer_that_nobody_reads_counts_and_ends_the_connection() -> None:
    room = Room()
    connection, transport = room.connect()
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    connection.answer(Answer(200, b"{}"))
    connection.pause_writing()
    assert room.hall.held_bytes == 1000 and not transport.is_reading
    room.later(http1.UNREAD_SECONDS + 1)
    assert transport.is_aborted


# ------------------------------------------------------------ whose turn it is


def waiting(command: m.Command) -> Waiting:
    future: Any = asyncio.Future(loop=asyncio.new_event_loop())
    return Waiting(SubjobKey("w", "s"), Sent(command, "r", None, b""), "admin", future)


def test_renewals_come_before_writes_and_writes_before_newcomers() -> None:
    lanes = Lanes()
    newcomer, write, renewal = m.Acquire(NONCE), m.Enter(1, NONCE, "run"), m.Renew(1, NONCE)
    for command in (newcomer, write, renewal, newcomer, renewal):
        lanes.add(waiting(command))
    commands = [one.sent.command for one in lanes.next(100)]  # type: ignore[union-attr]
    assert commands == [renewal, renewal, write, newcomer, newcomer]


def test_a_flood_of_newcomers_fills_its_own_lane_and_gets_a_part_of_a_turn() -> None:
    lanes = Lanes(renewals_max=2, writes_max=NEWCOMERS_AT_ONCE + 1)
    for _ in range(NEWCOMERS_AT_ONCE + 1):
        lanes.add(waiting(m.Acquire(NONCE)))
    with pytest.raises(QueueFull):
        lanes.add(waiting(m.Acquire(NONCE)))
    lanes.add(waiting(m.Renew(1, NONCE)))
    assert lanes.refused == {"renewals": 0, "writes": 0, "newcomers": 1}
    assert len(list(lanes.next(1000))) == NEWCOMERS_AT_ONCE + 1
    assert lanes.waiting == 1


def test_a_token_may_burst_and_then_send_at_its_rate() -> None:
    now = 0.0
    throttle = Throttle(2.0, lambda: now)
    burst = int(2 * BURST_SECONDS)
    assert [throttle.wait_seconds("a") for _ in range(burst)] == [0.0] * burst
    assert throttle.wait_seconds("a") == pytest.approx(0.5)
    assert throttle.wait_seconds("b") == 0.0
    now += 0.5
    assert throttle.wait_seconds("a") == 0.0
    assert throttle.wait_seconds("a") > 0.0
