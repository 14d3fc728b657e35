"""No text of the project names a path, a module or a page that does not exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from tests.manual_text import HISTORY, PROJECT, Printed, spans, tracked

_TEXT = (".cfg", ".conf", ".cpf", ".md", ".py", ".service", ".sh", ".sql", ".toml")
_SUFFIX = r"(?:c|conf|cpf|dag|json|md|py|service|sh|sql|sub|toml|txt)"
#: A relative path with a slash; what stands for others (`FILE`, `*`, `{}`, `$X`) is none.
_PATH = re.compile(rf"(?<![\w/.:~$*}}>-])((?:[a-z_][\w.@-]*/)+[\w.@-]+\.{_SUFFIX})(?![\w/*{{-])")
_FOLDER = re.compile(r"^([a-z_]+/(?:[\w-]+/)*)$")
_MODULE = re.compile(r"^(htlease(?:_[a-z]+)?(?:\.\w+)+)(?:\(\))?$")
#: Files of a site or a job whose names begin like a module's.
_FILES = ("htlease.agent", "htlease.sqlite3", "htlease.token", "htlease.toml")
_SCRIPT = re.compile(r"^([a-z_]\w*\.py)$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
#: Where files are once installed, built or made, or in a repository that is not ours.
_ELSEWHERE = (
    "bench/results.json",
    "dist/",
    "package/module.py",
    "blah.py",
    "share/htlease/",
    "src/condor_",
)


@cache
def _tails() -> frozenset[str]:
    """Return every file and folder of the project, and the ends of their paths."""
    found: set[str] = set()
    for name in tracked():
        parts = PurePosixPath(name).parts
        for first in range(len(parts)):
            for last in range(first + 1, len(parts) + 1):
                found.add("/".join(parts[first:last]))
    return frozenset(found)


def is_there(path: str) -> bool:
    """Tell whether a path, or the end of one, is in the project."""
    return path.startswith(_ELSEWHERE) or path.strip("/") in _tails()


@cache
def _source_of(module: str) -> Path | None:
    relative = module.replace(".", "/")
    for name in tracked():
        if name.partition("/")[2] in (f"{relative}.py", f"{relative}/__init__.py"):
            return PROJECT / name
    return None


@cache
def _names_in(source: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return frozenset(names)


def is_module(name: str) -> bool:
    """Tell whether a dotted name is a module, or what one defines."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        source = _source_of(".".join(parts[:length]))
        if source is not None:
            return set(parts[length:]) <= _names_in(source)
    return False


def texts() -> list[str]:
    """Return the files whose text is ours and tells of today."""
    return [
        name
        for name in tracked()
        if (name.endswith(_TEXT) or name == "Makefile")
        and not name.startswith((*HISTORY, "tests/data/"))
    ]


def missing(one: Printed) -> Iterator[str]:
    """Yield what a piece of code names that is not in the project."""
    yield from (path for path in _PATH.findall(one.text) if not is_there(path))
    script = _SCRIPT.match(one.text)
    if script and not is_there(script[1]):
        yield script[1]
    folder = _FOLDER.match(one.text)
    if folder and (PROJECT / folder[1].partition("/")[0]).is_dir() and not is_there(folder[1]):
        yield folder[1]
    module = _MODULE.match(one.text)
    if module and not module[1].startswith(_FILES) and not is_module(module[1]):
        yield module[1]


def test_texts_name_what_exists() -> None:
    wrong = [
        f"{one.where}: {name}"
        for file in texts()
        for one in spans(file, (PROJECT / file).read_text())
        for name in missing(one)
    ]
    assert not wrong, "\n".join(wrong)


def test_links_between_pages_lead_somewhere() -> None:
    wrong = [
        f"{file}: {target}"
        for file in tracked()
        if file.endswith(".md") and not file.startswith("tests/data/")
        for target in _LINK.findall((PROJECT / file).read_text())
        if not re.match(r"[a-z]+:|#", target)
        and not (PROJECT / file).parent.joinpath(target.partition("#")[0]).exists()
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("core/htlease/rules/acquire.py", []),
        ("rules/acquire.py", []),
        ("core/htlease/lifecycle.py", ["core/htlease/lifecycle.py"]),
        ("pytest -q tests/unit/core/test_gone.py", ["tests/unit/core/test_gone.py"]),
        ("keeper_of_old.py", ["keeper_of_old.py"]),
        ("/etc/htlease/auth.toml", []),
        ("core/gone/", ["core/gone/"]),
        ("htlease.rules.acquire.decide", []),
        ("htlease.lifecycle", ["htlease.lifecycle"]),
        ("htlease.rules.acquire.gone", ["htlease.rules.acquire.gone"]),
    ],
)
def test_what_is_missing_is_found(text: str, names: list[str]) -> None:
    assert list(missing(Printed("page.md", 1, text))) == names
