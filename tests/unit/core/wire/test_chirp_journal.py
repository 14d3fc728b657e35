"""A journal comes back from job attributes as it went in, or not at all."""

from __future__ import annotations

import secrets

import pytest

from htlease.wire.chirp_journal import (
    PART_CHARS,
    PARTS,
    Entry,
    Journal,
    JournalFull,
    Unreadable,
    from_attributes,
    pack,
    to_attributes,
    unpack,
)


def journal(count: int, details: str = "") -> Journal:
    entries = [
        Entry(number, "enter", f"phase {number}", "2026-01-01T00:00:00Z", {"details": details})
        for number in range(1, count + 1)
    ]
    return Journal(7, tuple(entries))


@pytest.mark.parametrize("count", [0, 1, 200])
def test_a_journal_comes_back_as_it_was(count: int) -> None:
    assert from_attributes(to_attributes(journal(count))) == journal(count)


def test_every_part_fits_into_a_line_and_needs_no_quoting() -> None:
    attributes = to_attributes(journal(3, secrets.token_hex(4000)))
    assert len(attributes) > 2
    for name, text in attributes.items():
        assert len(f"set_job_attr_delayed {name} {text}") < 1000
        assert not set(text) & set(" \"\\\n'")
        assert len(text) <= PART_CHARS + 40


def test_parts_of_two_versions_are_no_journal() -> None:
    details = secrets.token_hex(2000)
    old, new = to_attributes(journal(2, details)), to_attributes(journal(3, details))
    assert len(new) > 1
    assert from_attributes({**new, PARTS[1]: old[PARTS[1]]}) is None
    assert from_attributes({name: text for name, text in new.items() if name != PARTS[1]}) is None


def test_what_an_earlier_start_left_in_further_parts_does_no_harm() -> None:
    left = to_attributes(journal(3, secrets.token_hex(4000)))
    assert from_attributes({**left, **to_attributes(journal(1))}) == journal(1)


def test_without_a_journal_there_is_none() -> None:
    assert from_attributes({}) is None
    assert from_attributes({PARTS[0]: 5}) is None


def test_too_much_is_refused_at_once() -> None:
    with pytest.raises(JournalFull):
        to_attributes(journal(1, secrets.token_hex(60_000)))


@pytest.mark.parametrize(
    "text",
    ["", "1.1.1", "x.1.1:abc", "1.1:abc", "1.1.1:no base64!", f"1.1.1:{pack({'entries': [[1]]})}"],
)
def test_a_text_of_somebody_elses_is_unreadable_or_nothing(text: str) -> None:
    try:
        assert from_attributes({PARTS[0]: text}) is None
    except Unreadable as error:
        assert str(error)


def test_a_text_that_would_unpack_to_gigabytes_is_unreadable() -> None:
    packed = pack({"entries": "x" * 5_000_000})
    assert len(packed) < 20_000
    with pytest.raises(Unreadable):
        unpack(packed)
