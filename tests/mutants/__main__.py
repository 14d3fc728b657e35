"""`python -m tests.mutants [MODULE …]`: changes the rules in small ways, and counts who notices.

mutmut changes one expression at a time in the modules below and runs those of the quick tests that
call it. What survives is printed as a difference. `equivalent.txt` has the mutants that change
nothing anybody could notice, with reasons. Ends with 1 below `SCORE_MIN_PERCENT`.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SCORE_MIN_PERCENT = 90.0
PROJECT = Path(__file__).resolve().parents[2]
#: A copy of the sources as one root, as mutmut wants it.
FOLDER = PROJECT / ".mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
ROOTS = {"htlease": PROJECT / "core", "htlease_server": PROJECT / "server_stub"}
MODULES = (
    *(f"htlease/{name}.py" for name in ("attempt", "lifecycle", "plan", "rollup", "starts")),
    *(f"htlease/{name}.py" for name in ("subjob", "writes")),
    *(f"htlease_server/{name}.py" for name in ("auth", "deciding", "exclusive", "pipeline")),
    *(f"htlease_server/{name}.py" for name in ("roles", "tokens", "turn", "turns", "uptime")),
)
#: Quick, and without a process of their own: mutmut runs them in forks of one that has them loaded.
TESTS = (
    "tests/unit/core/test_attempt.py",
    "tests/unit/core/test_every_decision.py",
    "tests/unit/core/test_lifecycle.py",
    "tests/unit/core/test_lifecycle_phases.py",
    "tests/unit/core/test_lifecycle_writes.py",
    "tests/unit/core/test_observed.py",
    "tests/unit/core/test_plans.py",
    "tests/unit/core/test_state_changes.py",
    "tests/unit/server/test_own_tokens.py",
    "tests/unit/server/test_restarts.py",
    "tests/unit/server/test_roles.py",
    "tests/unit/server/test_turns.py",
    "tests/unit/server/test_uptime.py",
    "tests/contract/test_every_answer.py",
    "tests/contract/test_pipeline.py",
)
_LEFT_ALONE = 33  # what mutmut notes where no test calls a function


class Mutant(NamedTuple):
    """One change, and what became of it."""

    module: str
    #: `-old +new`, as Python writes it.
    change: str
    is_noticed: bool


def main() -> int:
    """Make the mutants, run them and print the score; return the exit status."""
    wanted = [name for name in MODULES if not sys.argv[1:] or Path(name).stem in sys.argv[1:]]
    _prepare(wanted)
    os.nice(5)
    ran = subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=FOLDER)
    if ran.returncode:
        return ran.returncode
    return _tell([mutant for module in wanted for mutant in _mutants(module)])


def _prepare(modules: Iterable[str]) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    for package, root in ROOTS.items():
        shutil.copytree(root / package, FOLDER / "src" / package)
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "tests", FOLDER / "tests", ignore=leave)
    shutil.copytree(PROJECT / "docs", FOLDER / "docs", ignore=shutil.ignore_patterns("_build"))
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/{module}" for module in modules],
        "also_copy": ["tests", "docs"],
        "pytest_add_cli_args_test_selection": [name for name in TESTS if (PROJECT / name).exists()],
        "pytest_add_cli_args": ["-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:timeout"],
    }
    lines = [
        "[tool.mutmut]",
        *(f"{name} = {json.dumps(value)}" for name, value in settings.items()),
    ]
    lines += [
        "[tool.pytest.ini_options]",
        'pythonpath = ["src", "."]',
        'addopts = "--import-mode=importlib"',
        'markers = ["slow: takes long", "pool: needs HTCondor"]',
    ]
    (FOLDER / "pyproject.toml").write_text("\n".join(lines) + "\n")


def _mutants(module: str) -> Iterator[Mutant]:
    """Yield the mutants of a module with what mutmut notes of each beside its copy."""
    path = FOLDER / "mutants" / "src" / module
    noted: dict[str, int | None] = json.loads(path.with_name(f"{path.name}.meta").read_text())[
        "exit_code_by_key"
    ]
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    for key, code in noted.items():
        name = key.rpartition(".")[2]
        before = functions[re.sub(r"__mutmut_\d+$", "__mutmut_orig", name)]
        is_noticed = code not in (0, None, _LEFT_ALONE)
        yield Mutant(module, _change(before, functions[name]), is_noticed)


def _change(before: ast.AST, after: ast.AST) -> str:
    old, new = (
        [line.strip() for line in ast.unparse(one).splitlines()[1:]] for one in (before, after)
    )
    lines = difflib.unified_diff(old, new, lineterm="", n=0)
    return " ".join(line for line in lines if line[:2] not in ("--", "++", "@@"))


def _tell(mutants: list[Mutant]) -> int:
    known = {
        line.partition(" # ")[0].strip()
        for line in EQUIVALENT.read_text().splitlines()
        if line and line[0] != "#"
    }
    counted = [
        one for one in mutants if f"{one.module}: {one.change}" not in known or one.is_noticed
    ]
    for one in counted:
        if not one.is_noticed:
            print(f"{one.module}: {one.change}")
    for module in dict.fromkeys(one.module for one in mutants):
        _print_score(module, [one for one in counted if one.module == module])
    score = _print_score("all", counted)
    print(f"{len(mutants) - len(counted)} more change nothing that anybody could notice")
    return int(score < SCORE_MIN_PERCENT)


def _print_score(what: str, mutants: list[Mutant]) -> float:
    noticed = sum(one.is_noticed for one in mutants)
    score = 100.0 * noticed / max(1, len(mutants))
    print(f"{what:32} {noticed:5} of {len(mutants):5} noticed, {score:5.1f} %")
    return score


if __name__ == "__main__":
    sys.exit(main())
