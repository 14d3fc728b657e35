"""A start's updates as text in job attributes, where nothing but HTCondor leads off a machine.

The execution point writes them, the access point reads them from the queue; both ends use this
module. A delayed chirp update takes lines of 1,024 characters (`CHIRP_LINE_MAX`), so a journal is
cut into parts, which count as one only when all of them are there.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from htlease.json_text import json_from

#: Attribute in which a start finds the lease that was taken for it, packed.
GRANT_ATTRIBUTE = "HTLeaseGrant"
PART_CHARS = 800
PARTS_MAX = 64
#: Names of the attributes that hold the parts of a journal.
PARTS = tuple(f"ChirpHTLeaseJournal{number}" for number in range(PARTS_MAX))
_UNPACKED_MAX_BYTES = 1 << 20


class Unreadable(ValueError):
    """A text is no document packed here."""


class JournalFull(Exception):
    """A journal has more text than its attributes can take."""


@dataclass(frozen=True)
class Entry:
    """One command, less what its reader knows: fence and nonce."""

    #: Counts from 1 under one fence.
    number: int
    #: The last word of the command's path.
    call: str
    phase: str | None
    #: When it was meant, by the machine's own clock, as RFC 3339.
    client_at: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Journal:
    """All that a start has had to say so far."""

    fence: int
    entries: tuple[Entry, ...] = ()


def pack(document: Mapping[str, Any]) -> str:
    """Return a document as text without any character that an ad would have to quote."""
    data = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.compress(data, 9)).decode()


def unpack(text: str) -> dict[str, Any]:
    """Return the document; raises Unreadable."""
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.urlsafe_b64decode(text), _UNPACKED_MAX_BYTES)
        document = json_from(data)
    except (ValueError, zlib.error) as error:
        raise Unreadable(f"not a packed document: {error}") from None
    if not isinstance(document, dict):
        raise Unreadable("not a packed document")
    return document


def to_attributes(journal: Journal) -> dict[str, str]:
    """Return the attributes that hold a journal; raises JournalFull."""
    rows = [
        [entry.number, entry.call, entry.phase, entry.client_at, dict(entry.fields)]
        for entry in journal.entries
    ]
    text = pack({"entries": rows})
    parts = [text[at : at + PART_CHARS] for at in range(0, len(text), PART_CHARS)]
    if len(parts) > PARTS_MAX:
        raise JournalFull(f"{len(text)} characters")
    version = journal.entries[-1].number if journal.entries else 0
    head = f"{journal.fence}.{version}.{len(parts)}:"
    return {name: head + part for name, part in zip(PARTS, parts)}


def from_attributes(attributes: Mapping[str, object]) -> Journal | None:
    """Return the journal in a job's attributes; None while parts of it are missing.

    Raises Unreadable.
    """
    head, part = _split(attributes.get(PARTS[0]))
    if head is None:
        return None
    try:
        fence, _, count = (int(number) for number in head.split("."))
    except ValueError:
        raise Unreadable(f"{PARTS[0]} does not begin as a journal does") from None
    parts = [part]
    for name in PARTS[1:count]:
        head_here, part = _split(attributes.get(name))
        if head_here != head:
            return None
        parts.append(part)
    rows = unpack("".join(parts)).get("entries")
    return Journal(fence, tuple(_entries(rows)))


def _split(value: object) -> tuple[str | None, str]:
    head, colon, part = value.partition(":") if isinstance(value, str) else ("", "", "")
    return (head, part) if colon else (None, "")


def _entries(rows: Any) -> Iterator[Entry]:
    try:
        for number, call, phase, client_at, fields in rows:
            entry = Entry(int(number), str(call), phase, str(client_at), dict(fields))
            if not isinstance(phase, (str, type(None))):
                raise ValueError("a phase is no text")
            yield entry
    except (TypeError, ValueError) as error:
        raise Unreadable(f"no entries of a journal: {error}") from None
