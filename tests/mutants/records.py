"""What is known of tests and mutants, kept between runs so that a run can be taken up again.

A mutant that was noticed stays so as long as its module is what it was. One that was not, and what
a test runs, are asked again once any module or test has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutants.making import PROJECT, ROOTS, Made, Mutant

#: Stands for the test where a test never ended.
HANG = "a hang"


class Learned(NamedTuple):
    """What is known of a test; `seconds` is negative for one that does not pass by itself."""

    seconds: float
    #: Module -> lines of its made code.
    lines: dict[str, list[int]]


class Records:
    """Two files of JSON lines: of tests, and of mutants."""

    def __init__(self, folder: Path, made: Iterable[Made], asked: Iterable[str]) -> None:
        """Read what is known; who was not noticed by some tests may be by others."""
        self.folder = folder
        self._sources = {one.module: one.source_digest for one in made}
        code = _digest(sorted(path for root in ROOTS.values() for path in root.rglob("*.py")))
        used = [
            path
            for folder in ("unit/core", "unit/server", "contract")
            for path in sorted((PROJECT / "tests" / folder).rglob("*.py"))
        ]
        self._tests = _digest(used, " ".join((code, *asked)))
        self._helpers = _digest([path for path in used if path.name[:5] != "test_"], code)
        self._mutants_path = folder / "mutants.jsonl"
        self._learned_path = folder / "tests.jsonl"
        #: Mutant -> by whom it was noticed, or None.
        self.noticed: dict[tuple[str, str], str | None] = {}
        for line in _lines(self._mutants_path):
            module, name, source, tests, by = line
            if self._sources.get(module) == source and (by or tests == self._tests):
                self.noticed[module, name] = by

    def add(self, mutant: Mutant, by: str | None) -> None:
        self.noticed[mutant.module, mutant.name] = by
        source = self._sources[mutant.module]
        _append(self._mutants_path, (mutant.module, mutant.name, source, self._tests, by))

    def learned(self, names: Iterable[str]) -> dict[str, Learned]:
        """Return what is known of these tests."""
        wanted = set(names)
        return {
            name: Learned(seconds, lines)
            for name, digest, seconds, lines in _lines(self._learned_path)
            if name in wanted and digest == self._digest_of(name)
        }

    def add_learned(self, name: str, one: Learned) -> None:
        _append(self._learned_path, (name, self._digest_of(name), one.seconds, one.lines))

    def _digest_of(self, name: str) -> str:
        return _digest([PROJECT / name.partition("::")[0]], self._helpers)


def _digest(paths: Iterable[Path], salt: str = "") -> str:
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _lines(path: Path) -> Iterable[list[Any]]:
    return map(json.loads, path.read_text().splitlines()) if path.exists() else ()


def _append(path: Path, line: tuple[object, ...]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
