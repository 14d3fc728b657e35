"""What the manual says of roles is what the table says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from htlease.errors import InvalidField
from htlease_server.auth.principal import check_pattern, is_within
from htlease_server.auth.roles import MAY, Role

PAGE = Path(__file__).resolve().parents[4] / "docs" / "security.md"


def test_the_manual_has_the_table_of_roles() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("|")
    ]
    head = next(row for row in rows if row[0] == "call")
    assert head[1:] == [role.value for role in Role]
    told = {}
    for row in rows[rows.index(head) + 2 :]:
        calls = re.findall(r"`([\w-]+)`", row[0])
        if not calls or len(row) != len(head):
            break
        may = {role for role, cell in zip(Role, row[1:], strict=True) if cell == "yes"}
        told.update(dict.fromkeys(calls, may))
    assert told == {call: set(may) for call, may in MAY.items()}


@pytest.mark.parametrize(
    ("patterns", "name", "is_in"),
    [
        (("*",), "anything", True),
        (("*",), "*", True),
        (("a",), "a", True),
        (("a",), "ab", False),
        (("a*",), "ab", True),
        (("a*",), "a", True),
        (("a*",), "ba", False),
        (("a*",), "ab*", True),
        (("ab*",), "a*", False),
        (("ab*",), "*", False),
        (("x", "b*"), "bc", True),
        ((), "a", False),
    ],
)
def test_a_pattern_takes_in_what_begins_so(
    patterns: tuple[str, ...], name: str, is_in: bool
) -> None:
    assert is_within(patterns, name) is is_in


@pytest.mark.parametrize("text", ["", "a/b", "a*b", "**", "a b", "*a"])
def test_a_pattern_is_a_name_or_the_beginning_of_one(text: str) -> None:
    with pytest.raises(InvalidField):
        check_pattern(text)
    assert check_pattern("a*") == "a*" and check_pattern("*") == "*"
