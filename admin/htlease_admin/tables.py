"""Tables for people: rich on a terminal, plain aligned text in a pipe or file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

_STYLES = {
    "active": "cyan",
    "running": "cyan",
    "recalled": "yellow",
    "lapsed": "yellow",
    "interrupted": "yellow",
    "abandoned": "yellow",
    "partial": "yellow",
    "complete": "green",
    "ok": "green",
    "failed": "red",
    "problem": "bold red",
    "warning": "yellow",
    "cancelled": "magenta",
}


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; what is not known is an empty cell."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print a table in the way that suits where it goes; nothing is cut off in a pipe."""
    stream = stream or sys.stdout
    if stream.isatty():
        _print_rich(table, stream)
    else:
        for line in plain_lines(table):
            print(line, file=stream)


def plain_lines(table: Table) -> list[str]:
    """Return a table as aligned lines, two spaces between columns, `-` in an empty cell."""
    lines = [table.columns, *(tuple(cell or "-" for cell in row) for row in table.rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _print_rich(table: Table, stream: TextIO) -> None:
    # Imported late: a command in a script should not pay for it.
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    rich_table = RichTable(box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        rich_table.add_column(column, overflow="fold")
    for row in table.rows:
        # Text, not markup: a name may contain square brackets.
        rich_table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in row))
    Console(file=stream).print(rich_table)


def duration_text(seconds: float) -> str:
    """Return a duration in its largest fitting unit, e.g. `45 s`, `12 min`, `3.5 h`, `2 d`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def moment_text(rfc3339: str | None) -> str:
    """Return an instant of the wire as `2026-11-21 03:45:12`, UTC."""
    return (rfc3339 or "")[:19].replace("T", " ")
