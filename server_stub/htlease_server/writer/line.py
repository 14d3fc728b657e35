"""What goes over the line: a batch one way, what became of it the other, each with its length."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any, BinaryIO

import msgspec

from htlease_server.store import Batch

_LENGTH = struct.Struct("!Q")


class Outcome(msgspec.Struct, frozen=True):
    """What became of a batch."""

    #: Seconds that the transaction took.
    seconds: float = 0.0
    #: Why nothing of it was kept; None: all of it is durable.
    problem: str | None = None
    #: Where that was a mistake of ours.
    trace: str | None = None


def framed(message: Batch | Outcome) -> bytes:
    """Return a message as it goes over the line."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def receive(stream: BinaryIO) -> bytes | None:
    """Wait for a message and return its body; None when the other end is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def _counter(cls: Any, counts: dict[Any, int]) -> Any:
    return Counter(counts)


_encoder = msgspec.msgpack.Encoder()
batch_from = msgspec.msgpack.Decoder(Batch, dec_hook=_counter).decode
outcome_from = msgspec.msgpack.Decoder(Outcome).decode
