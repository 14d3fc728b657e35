"""TOML with the line of each thing, so that a complaint can say where to look."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig

_HEADER = re.compile(r"\s*\[\[?\s*(?P<name>[^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\"'-]+)\s*=")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


class TomlFile:
    """A TOML document and where its tables and keys begin."""

    def __init__(self, path: Path) -> None:
        """Read a file; raises BadConfig naming file and line."""
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise BadConfig(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BadConfig(f"{path}: is not UTF-8 text: {error}") from None
        self.document = self._parsed()

    def _parsed(self) -> dict[str, Any]:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            document: dict[str, Any] = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            line = int(found[1]) if found else self._text.count("\n") + 1
            raise BadConfig(f"{self.path}:{line}: {_AT_LINE.sub('', str(error)).strip()}") from None
        return document

    def line_of(self, table: str, key: str = "") -> int:
        """Return the line of a table's header or of a key in it; 1 when it stands nowhere."""
        here, header_line = "", 1
        for number, line in enumerate(self._text.splitlines(), 1):
            header = _HEADER.fullmatch(line)
            if header:
                here = re.sub(r"[\s\"']", "", header["name"])
                if here == table:
                    header_line = number
                    if not key:
                        return number
                continue
            found = _KEY.match(line)
            if found and here == table and found["name"].strip("\"'") == key:
                return number
            # An inline table, or a dotted key of the table above.
            is_above = not key and here == table.rpartition(".")[0]
            if found and is_above and found["name"].strip("\"'") == table.rpartition(".")[2]:
                return number
        return header_line

    def wrong(self, table: str, key: str, problem: str) -> BadConfig:
        """Return the complaint about a key, or about a table when there is no key."""
        name = f"[{table}] {key}".rstrip() if table else key
        return BadConfig(f"{self.path}:{self.line_of(table, key)}: {name}: {problem}")
