"""What the project's texts print as code: lines of code blocks, and words in backticks."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
#: Texts that tell what was: names in them are those of their time.
HISTORY = ("CHANGELOG.md", "docs/decisions/")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Printed:
    """A piece of code in a text."""

    file: str
    line: int
    text: str

    @property
    def where(self) -> str:
        """Return the place as editors take it."""
        return f"{self.file}:{self.line}"


@cache
def tracked() -> tuple[str, ...]:
    """Return the files of the project, by git or, in an archive of it, by looking."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return tuple(name for name in listed.stdout.splitlines() if (PROJECT / name).is_file())
    paths = (path.relative_to(PROJECT) for path in PROJECT.rglob("*") if path.is_file())
    return tuple(sorted(str(path) for path in paths if not path.parts[0].startswith(".")))


def manuals() -> list[str]:
    """Return the pages for people: READMEs and what is in docs, without what tells history."""
    return [
        name
        for name in tracked()
        if name.endswith(".md") and not name.startswith((*HISTORY, "tests/data/"))
    ]


def spans(file: str, text: str, first_line: int = 1) -> Iterator[Printed]:
    """Yield the words in backticks, each paragraph or table row for itself."""
    line = first_line
    for part in re.split(r"(\n\s*\n|\n(?=\s*\|))", text):
        for found in _SPAN.finditer(part):
            at = line + part.count("\n", 0, found.start())
            yield Printed(file, at, " ".join(found[2].split()).replace("\\|", "|"))
        line += part.count("\n")


def code(file: str) -> list[Printed]:
    """Return all code of a Markdown page: lines of its blocks, joined at backslashes, and spans."""
    printed: list[Printed] = []
    prose: list[str] = []
    fence = ""
    was_blank = True
    block: list[tuple[int, str]] = []
    for number, line in enumerate((PROJECT / file).read_text().splitlines(), 1):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
            prose.append("")
        elif fence or (
            line.startswith("    ") and (was_blank or (block and block[-1][0] == number - 1))
        ):
            block.append((number, line))
            prose.append("")
        else:
            prose.append(line)
        was_blank = not line.strip()
    joined = ""
    start = 0
    for number, line in block:
        start = start if joined else number
        joined = f"{joined} {line.strip()}".strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip()
            continue
        printed.append(Printed(file, start, joined))
        joined = ""
    return [*printed, *spans(file, "\n".join(prose))]


def messages(file: str) -> Iterator[Printed]:
    """Yield what stands in backticks in a source's strings, with X for each value put in."""
    tree = ast.parse((PROJECT / file).read_text())
    parts = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for value in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(value.value) if isinstance(value, ast.Constant) else "X"
                for value in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = "" if id(node) in parts else node.value
        else:
            continue
        yield from spans(file, text, node.lineno)
