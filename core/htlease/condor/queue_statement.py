"""The queue statement of a submit file: how many jobs, and what differs between them; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from htlease.errors import InvalidField

_QUEUE = re.compile(r"\s*queue\b(?P<rest>.*)", re.IGNORECASE)
#: A line that goes on in the next one.
_CONTINUED = re.compile(r"\\[ \t\r]*\n")
_KEYWORD = re.compile(r"(?:^|\s)(?:in|from|matching)(?=[\s(\[]|$)", re.IGNORECASE)
_SLICE = re.compile(r"\b(?:in|from|matching)\s*\[", re.IGNORECASE)
#: A variable's value ends at a comma or at space; the last one takes the rest of the line.
_BETWEEN_VALUES = re.compile(r"\s*,\s*|\s+")
UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class QueueStatement:
    """What stands between `queue` and its items."""

    #: Jobs for each item: a number or an expression with macros.
    count: str
    #: What each item sets; empty when there are no items.
    variables: tuple[str, ...]


def read_queue(arguments: str) -> QueueStatement:
    """Read the arguments of a queue statement, up to its items."""
    keyword = _KEYWORD.search(arguments)
    if keyword is None:
        return QueueStatement(arguments.strip() or "1", ())
    words = re.findall(r"[^\s,]+", arguments[: keyword.start()])
    count = "1"
    if words and not re.match(r"[A-Za-z_]", words[0]):
        count = words.pop(0)
    return QueueStatement(count, tuple(words) or ("Item",))


def split_item(line: str, variables: tuple[str, ...]) -> dict[str, str]:
    """Return the value of each variable in one item's line."""
    if UNIT_SEPARATOR in line:
        values = line.split(UNIT_SEPARATOR)
    else:
        values = _BETWEEN_VALUES.split(line.strip(), maxsplit=len(variables) - 1)
        values = values if len(variables) > 1 else [line.strip()]
    values += [""] * (len(variables) - len(values))
    return dict(zip(variables, (value.strip() for value in values), strict=False))


def queue_statements(text: str) -> list[str]:
    """Return what stands after `queue` in each queue statement of a submit file."""
    found: list[str] = []
    in_items = False
    for line in _CONTINUED.sub(" ", text).splitlines():
        if in_items:
            in_items = not line.lstrip().startswith(")")
            continue
        match = _QUEUE.fullmatch(line)
        if match is None or match["rest"].lstrip().startswith("="):
            continue
        found.append(match["rest"])
        in_items = match["rest"].rstrip().endswith("(")
    return found


def check_one_queue(text: str, source: str) -> None:
    """Refuse a submit file with several queue statements or a slice; raises InvalidField.

    The bindings would queue the first statement, and every item, and say nothing.
    """
    check_no_slice(text, source)
    if not queue_statements(text):
        raise InvalidField(source, "has no queue statement; end it with `queue`")
    check_not_several(text, source)


def check_no_slice(text: str, source: str) -> None:
    """Refuse a submit file that queues a slice of its items, of which all would be taken."""
    if any(_SLICE.search(statement) for statement in queue_statements(text)):
        raise InvalidField(source, "queues a slice [...]; list the items that you want")


def check_not_several(text: str, source: str) -> None:
    """Refuse a submit file of whose queue statements only the first would count, unsaid."""
    count = len(queue_statements(text))
    if count > 1:
        raise InvalidField(
            source, f"has {count} queue statements; make it one file for each of them"
        )
