"""Tables for people: rich on a terminal, plain aligned text in a pipe or file.

What is wider than the terminal, or than COLUMNS where that is set, is folded, and where the columns
would become too narrow to read each row becomes a block of lines.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
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
#: What a folded column keeps, or its heading if that is longer.
_COLUMN_MIN = 16
_GAP = "  "


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; what is not known is an empty cell."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print a table in the way that suits where it goes; nothing is cut off."""
    stream = stream or sys.stdout
    width = width_of(stream, os.environ)
    if width is not None and folded_widths(table, width) is None:
        lines = block_lines(table, width)
    elif stream.isatty():
        _print_rich(table, stream, width)
        return
    else:
        lines = plain_lines(table, width)
    for line in lines:
        print(line, file=stream)


def width_of(stream: TextIO, environ: Mapping[str, str]) -> int | None:
    """Return how many columns there are; None: as many as are needed, as in a pipe."""
    columns = environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def folded_widths(table: Table, width: int | None) -> list[int] | None:
    """Return the widths of the columns, folded where need be; None where that would not do."""
    lines = _cells(table)
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    if width is None:
        return widths
    least = [
        min(its, max(len(column), _COLUMN_MIN))
        for its, column in zip(widths, table.columns, strict=True)
    ]
    room = width - len(_GAP) * (len(widths) - 1)
    if sum(least) > room:
        return None
    for _ in range(max(0, sum(widths) - room)):
        spare = [its - one for its, one in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    return widths


def block_lines(table: Table, width: int) -> list[str]:
    """Return each row as a block of lines, a column each; what is not known is left out."""
    margin = max(map(len, table.columns)) + len(_GAP)
    lines: list[str] = []
    for row in table.rows:
        if lines:
            lines.append("")
        for column, cell in zip(table.columns, row, strict=True):
            for number, part in enumerate(_folded(cell, max(width - margin, 1)) if cell else ()):
                lines.append(f"{'' if number else column:<{margin}}{part}")
    return lines


def _folded(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width, break_on_hyphens=False) or [cell]


def _cells(table: Table) -> list[tuple[str, ...]]:
    return [table.columns, *(tuple(cell or "-" for cell in row) for row in table.rows)]


def plain_lines(table: Table, width: int | None = None) -> list[str]:
    """Return a table as aligned lines, two spaces between columns, `-` in an empty cell."""
    widths = folded_widths(table, width)
    if widths is None:
        raise ValueError(f"the columns do not fit into {width}")
    return [line for cells in _cells(table) for line in _aligned(cells, widths)]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    parts = [
        [cell] if len(cell) <= width else _folded(cell, width)
        for cell, width in zip(cells, widths, strict=True)
    ]
    for number in range(max(map(len, parts))):
        shown = [part[number] if number < len(part) else "" for part in parts]
        yield _GAP.join(map(str.ljust, shown, widths)).rstrip()


def _print_rich(table: Table, stream: TextIO, width: int | None) -> None:
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
    Console(file=stream, width=width).print(rich_table)


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
