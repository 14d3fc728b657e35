"""Frames of the socket: a write set one way, what became of it the other, each with its length."""

from __future__ import annotations

import enum
import struct
from collections import Counter
from typing import Any, BinaryIO

import msgspec

from htlease_server.store.base import CommitOutcomeUnknown, Displaced, StoreFailed, WriteSet

_LENGTH = struct.Struct("!Q")


class Kind(enum.Enum):
    """How a write set failed."""

    REFUSED = "refused"
    UNCERTAIN = "uncertain"
    DISPLACED = "displaced"

    @classmethod
    def of(cls, problem: StoreFailed) -> Kind:
        """Return the kind of a failure."""
        if isinstance(problem, Displaced):
            return cls.DISPLACED
        return cls.UNCERTAIN if isinstance(problem, CommitOutcomeUnknown) else cls.REFUSED


_EXCEPTIONS = {
    Kind.REFUSED: StoreFailed,
    Kind.UNCERTAIN: CommitOutcomeUnknown,
    Kind.DISPLACED: Displaced,
}


class Outcome(msgspec.Struct, frozen=True):
    """What became of a write set."""

    #: Seconds that the transaction took.
    seconds: float = 0.0
    #: Why nothing of it was kept; None: all of it is durable.
    problem: str | None = None
    kind: Kind = Kind.REFUSED
    #: Where that was a mistake of ours.
    trace: str | None = None

    @property
    def failure(self) -> StoreFailed | None:
        """The problem as an exception."""
        return None if self.problem is None else _EXCEPTIONS[self.kind](self.problem)


def framed(message: WriteSet | Outcome) -> bytes:
    """Return a message as it goes over the socket."""
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
write_set_from = msgspec.msgpack.Decoder(WriteSet, dec_hook=_counter).decode
outcome_from = msgspec.msgpack.Decoder(Outcome).decode
