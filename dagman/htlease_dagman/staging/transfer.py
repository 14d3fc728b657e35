"""What every transfer back-end speaks: a transfer to be made, a task, its sights, and refusals.

A back-end is a plug-in with the methods of `Backend`. It keeps nothing between calls: whoever
watches a transfer next, on another day or another machine, has only the record on the lease server.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from htlease.errors import HTLeaseError


@dataclass(frozen=True)
class Place:
    """One end of a transfer, by the name that people use for it."""

    name: str
    #: What the back-end prepends to a file's name: a directory, a URL, a path in a collection.
    path: str
    #: The Globus collection (UUID); other back-ends have no use for it.
    collection: str | None = None

    def of(self, item: str) -> str:
        """Return where a file or directory lies in this place."""
        return f"{self.path.rstrip('/')}/{item}"


@dataclass(frozen=True)
class Item:
    """One file to move, or a directory with all below it when the names end with a slash."""

    source: str
    destination: str

    @property
    def is_directory(self) -> bool:
        return self.source.endswith("/")


@dataclass(frozen=True)
class Transfer:
    """What is to be moved from where to where."""

    source: Place
    destination: Place
    items: tuple[Item, ...]

    def pairs(self) -> list[tuple[str, str]]:
        """Return the full source and destination of each item."""
        return [(self.source.of(i.source), self.destination.of(i.destination)) for i in self.items]


class State(enum.Enum):
    """Where a task stands, as far as a watcher has to act differently."""

    #: It goes on, or is queued, or the service's answer says nothing clear.
    RUNNING = "running"
    DONE = "done"
    #: It waits for a person; nothing is lost and nothing fails meanwhile.
    NEEDS_ACTION = "needs-action"
    #: It ended badly, and a new task may well succeed.
    RETRYABLE = "retryable"
    #: It ended badly, and so would any other.
    FATAL = "fatal"
    #: The service knows no such task.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class TaskStatus:
    """What one look at a task showed."""

    state: State
    #: One line for people; with NEEDS_ACTION what to do, word for word.
    text: str = ""
    #: Counts such as bytes and files; kept as data.
    counts: Mapping[str, str] = field(default_factory=dict)
    #: The answer could not be made sense of: taken for RUNNING, and counted.
    is_unclear: bool = False


class Backend(Protocol):
    """Speaks to a transfer service; every method may raise ServiceUnavailable and NeedsPerson."""

    #: The service itself tells a second submission of one key from a first: nothing is doubled.
    submits_once: bool
    #: The task is a child of the watcher and ends with it: the next one starts another.
    ends_with_watcher: bool

    def reserve(self, key: str) -> str | None:
        """Return what has to be on record before `submit`, or None if the key is enough."""

    def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
        """Start the transfer and return the task's external ID.

        Raises Refused when it was certainly not accepted; `ServiceUnavailable` leaves that open.
        """

    def poll(self, external_id: str) -> TaskStatus:
        """Look at a task; raises CannotFind when the service has forgotten all it had."""

    def cancel(self, external_id: str) -> None:
        """Ask the service to end a task; one that has ended is no error."""

    def find_by_key(self, key: str, reservation: str | None = None) -> str | None:
        """Return the task that was submitted under a key, or None when there certainly is none.

        `reservation` is what was on record before. Raises CannotFind when the service cannot be
        asked that.
        """

    def check(self, place: Place, has_to_exist: bool) -> str | None:
        """Return why a place cannot be used, or None, as far as that can be told ahead."""

    def close(self) -> None:
        """Let go of what belongs to the watcher."""


class TransferError(HTLeaseError):
    """A transfer service said no, or nothing."""


class ServiceUnavailable(TransferError):
    """No usable answer; whether the service acted is not known."""


class Refused(TransferError):
    """The service did not accept the transfer, for certain."""

    def __init__(self, text: str, *, is_fatal: bool) -> None:
        super().__init__(text)
        self.is_fatal = is_fatal


class NeedsPerson(TransferError):
    """A person has to do something first; the text is what, word for word."""


class CannotFind(TransferError):
    """This service has no way to look a task up by its key."""
