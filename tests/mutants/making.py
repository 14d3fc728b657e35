"""Mutants of a module, made by mutmut: what each changes, where, and which of them count.

mutmut copies every function once for each mutant, all into one file; a wrapper calls the copy that is
chosen. What it leaves alone is left alone here: decorated functions, annotations, docstrings and what
stands outside of functions.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import pickle
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from mutmut.mutation.file_mutation import mutate_file_contents

PROJECT = Path(__file__).resolve().parents[2]
ROOTS = {"htlease": PROJECT / "core", "htlease_server": PROJECT / "server_stub"}
EQUIVALENT = Path(__file__).with_name("equivalent.txt")


class Mutant(NamedTuple):
    """One change of one function."""

    #: `package/module.py`.
    module: str
    #: As mutmut calls the copy.
    name: str
    #: Line of the module.
    line: int
    #: Lines of `made` code; a test that runs none of them cannot notice.
    lines: range
    #: `-old +new`, as Python writes it.
    change: str
    #: Why nobody has to notice, or None.
    excused: str | None

    @property
    def function(self) -> str:
        return self.name.partition("__mutmut_")[0]

    @property
    def place(self) -> str:
        """Return path and line, as editors take them."""
        root = ROOTS[self.module.partition("/")[0]]
        return f"{(root / self.module).relative_to(PROJECT)}:{self.line}"


class Made(NamedTuple):
    """A module with all of its mutants in it."""

    module: str
    source_digest: str
    code: str
    mutants: tuple[Mutant, ...]


def make(module: str, folder: Path) -> Made:
    """Return the mutants of a module; they are kept in `folder`, for mutmut takes a while."""
    source = (ROOTS[module.partition("/")[0]] / module).read_text()
    digest = hashlib.sha256(f"{module} {version('mutmut')} {source}".encode()).hexdigest()[:16]
    kept = folder / f"{digest}.made"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(_made(module, source)))
    made = pickle.loads(kept.read_bytes())
    assert isinstance(made, Made)
    excuses = dict(_excuses())
    mutants = (
        one._replace(excused=one.excused or excuses.get(f"{module}: {one.change}"))
        for one in made.mutants
    )
    return made._replace(mutants=tuple(mutants))


def _made(module: str, source: str) -> Made:
    made = mutate_file_contents(module, source)
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    lines = made.code.splitlines()
    spans = made.line_span_by_function_name
    copies = {
        node.name: node
        for node in ast.walk(ast.parse(made.code))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    starts = _starts(source)

    def mutant(name: str) -> Mutant:
        origin = re.sub(r"\d+$", "orig", name)
        before, after = copies[origin], copies[name]
        span = spans[origin]
        old = lines[before.lineno - 1 : span.end]
        new = lines[after.lineno - 1 : spans[name].end]
        at = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if n and a != b), 0)
        change = _change(before, after)
        excused = "text" if _without_text(before) == _without_text(after) else None
        function = name.partition("__mutmut_")[0]
        line = starts[function] + at
        return Mutant(module, name, line, _run_lines(before, before.lineno + at), change, excused)

    return Made(module, digest, made.code, tuple(mutant(name) for name in made.mutant_names))


def _starts(source: str) -> dict[str, int]:
    """Return the line of `def` for each function that mutmut may copy."""
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    starts = {f"x_{node.name}": node.lineno for node in tree.body if isinstance(node, kinds)}
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef):
            methods = [node for node in cls.body if isinstance(node, kinds)]
            starts.update({f"xǁ{cls.name}ǁ{node.name}": node.lineno for node in methods})
    return starts


def _run_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, line: int) -> range:
    """Return the lines of the innermost statement there; of a compound one, of its head.

    A change of a default value is run by whoever runs the function at all.
    """
    found = range(function.body[0].lineno, (function.end_lineno or function.lineno) + 1)
    for node in ast.walk(function):
        if node is function or not isinstance(node, (ast.stmt, ast.ExceptHandler)):
            continue
        body = getattr(node, "body", None)
        end = body[0].lineno if isinstance(body, list) else (node.end_lineno or 0) + 1
        lines = range(node.lineno, max(end, node.lineno + 1))
        if line in lines and len(lines) <= len(found):
            found = lines
    return found


def _change(before: ast.AST, after: ast.AST) -> str:
    # The first line has the name; its default values count all the same.
    old, new = (
        [
            re.sub(r"^(async )?def [^(]*", "def ", line.strip())
            for line in ast.unparse(one).splitlines()
        ]
        for one in (before, after)
    )
    lines = difflib.unified_diff(old, new, lineterm="", n=0)
    return " ".join(line for line in lines if line[:2] not in ("--", "++", "@@"))


class _WithoutText(ast.NodeTransformer):
    """Takes out what is there for people only: lines for the log, and sentences."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "note":
            return ast.Constant("a line for the log")
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        is_sentence = isinstance(node.value, str) and " " in node.value.strip()
        return ast.Constant("a sentence") if is_sentence else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        literal = "".join(str(one.value) for one in node.values if isinstance(one, ast.Constant))
        return ast.Constant("a sentence") if " " in literal.strip() else self.generic_visit(node)


def _without_text(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    bare = _WithoutText().visit(ast.parse(ast.unparse(function)).body[0])
    bare.name = "function"
    return ast.dump(bare)


def _excuses() -> Iterator[tuple[str, str]]:
    for line in EQUIVALENT.read_text().splitlines():
        if line and line[0] != "#":
            change, _, why = line.partition(" # ")
            yield change.strip(), why.strip()
