"""Every command that manual and messages print exists: verbs and options of `htlease`, targets of `make`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click
import pytest

from htlease_cli.cli import htlease
from htlease_dagman.scripts.invocation import MACROS
from htlease_lab.pool.cli import command_line as pool_command_line
from htlease_wrapper.cli import main as wrapper_main
from tests.manual_text import PROJECT, Printed, code, manuals, messages, spans, tracked

#: `htlease` where a shell would look for a program; not `htlease:` of a message, nor `--name htlease`.
_HTLEASE = re.compile(r"(?:^|(?<=[\s;&|(/\"']))htlease (?=[a-z-])(?!-ep)")
_HTLEASE_DAG = re.compile(r"(?:^|(?<=[\s;&|(/\"']))htlease-dag ([a-z|]+)")
_WRAPPER = re.compile(r"""(?:htlease-ep\.pyz|"\$HTLEASE"|^arguments *=)\ (?=[a-z]+\b(?!\ =))""")
_MAKE = re.compile(r"^(?:[A-Z_]+=\S+ )*make((?: [a-z][a-z-]*)*)(?= |$)")
_MODULE = re.compile(r"\bpython3? -m ((?:htlease|tests|bench)[\w.]*)")
#: Where the words of a command end, in a shell and in a sentence.
_END = re.compile(r" [|&;#>]|[;&)\"'>]|\$\(| #|,$| …| \.\.\.$")


@dataclass(frozen=True)
class Command:
    """A command: its verbs, its options and whether each takes a value."""

    verbs: dict[str, Command] = field(default_factory=dict)
    options: dict[str, bool] = field(default_factory=dict)
    #: What follows its first argument is another program's.
    runs_another: bool = False


def of_click(command: click.Command) -> Command:
    verbs = command.commands if isinstance(command, click.Group) else {}
    options = {
        name: not parameter.is_flag
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    return Command({name: of_click(verb) for name, verb in verbs.items()}, options)


def of_argparse(parser: argparse.ArgumentParser) -> Command:
    verbs: dict[str, Command] = {}
    options: dict[str, bool] = {}
    runs_another = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            verbs = {name: of_argparse(verb) for name, verb in action.choices.items()}
        options |= dict.fromkeys(action.option_strings, action.nargs != 0)
        runs_another |= action.nargs == argparse.REMAINDER
    return Command(verbs, options, runs_another)


HTLEASE = of_click(htlease)
# The personal pool's own command line, where it is installed.
HTLEASE.verbs["pool"] = of_argparse(pool_command_line())


def of_wrapper() -> Command:
    """Read the wrapper's commands off their help; it makes the parser of one only when called."""
    verbs = {"version": Command(), "hook": Command(runs_another=True)}
    for name in ("run", "phase", "details", "compile"):
        text = io.StringIO()
        with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
            wrapper_main(["htlease-ep.pyz", name, "--help"])
        options = {
            found[1]: bool(found[2])
            for found in re.finditer(
                r"^  (?:-h, )?(--[a-z-]+)( \S+)?", text.getvalue(), re.MULTILINE
            )
        }
        verbs[name] = Command(options=options, runs_another=name == "run")
    return Command(verbs)


WRAPPER = of_wrapper()


@dataclass(frozen=True)
class Unknown:
    """The words of a command line that the command does not know."""

    verbs: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()


def _unknown(words: Sequence[str], command: Command) -> Unknown:
    """Look up one command line from the root of the tree, until its words are no longer ours."""
    options = set[str]()
    takes_value = False
    for word in words:
        name = word.partition("=")[0]
        if takes_value and not word.startswith("-"):
            takes_value = False
        elif word == "--":
            break
        elif word.startswith("-") and word != "-":
            known = command.options | {"--help": False}
            if name not in known:
                options.add(name)
            takes_value = known.get(name, False) and "=" not in word
        elif command.verbs:
            if not re.fullmatch(r"[a-z][a-z-]*", word):
                break  # a placeholder for any verb
            if word not in command.verbs:
                return Unknown(verbs=frozenset({word}))
            command = command.verbs[word]
        elif command.runs_another:
            break
    return Unknown(options=frozenset(options))


def unknown_words(text: str, program: Command = HTLEASE) -> list[str]:
    """Return what the command does not know of a line or synopsis: `a|b [--x] NAME...`."""
    words = [word.strip("[]").removesuffix("...") for word in text.split()]
    # Of `hold|release --reason R`, one verb at least has to know the option.
    each = [
        _unknown(line, program) for line in itertools.product(*(w.split("|") for w in words if w))
    ]
    verbs = frozenset[str]().union(*(one.verbs for one in each))
    known_verbs = [one.options for one in each if not one.verbs]
    options = frozenset.intersection(*known_verbs) if known_verbs else frozenset[str]()
    return sorted(verbs | options)


def commands(printed: Printed, start: re.Pattern[str]) -> Iterator[str]:
    """Yield the words after each call of a program in a piece of code."""
    for found in start.finditer(printed.text):
        yield _END.split(printed.text[found.end() :], maxsplit=1)[0]


#: Configuration files and units, whose comments are a manual too.
_COMMENTED = (".conf", ".cpf", ".service")
PRINTED = [
    *(one for name in manuals() for one in code(name)),
    *(
        one
        for name in tracked()
        if name.endswith(_COMMENTED) and not name.startswith("tests/data/")
        for one in spans(name, (PROJECT / name).read_text())
    ),
    *(
        one
        for name in tracked()
        if name.endswith(".py") and not name.startswith("tests/")
        for one in messages(name)
    ),
]


def test_commands_of_htlease_exist() -> None:
    wrong = [
        f"{one.where}: htlease {text}: {', '.join(unknown)}"
        for one in PRINTED
        for text in commands(one, _HTLEASE)
        if (unknown := unknown_words(text))
    ]
    assert not wrong, "\n".join(wrong)


def test_commands_of_the_wrapper_exist() -> None:
    wrong = [
        f"{one.where}: {text}: {', '.join(unknown)}"
        for one in PRINTED
        for text in commands(one, _WRAPPER)
        if (unknown := unknown_words(text, WRAPPER))
    ]
    assert not wrong, "\n".join(wrong)


def test_scripts_of_dagman_exist() -> None:
    kinds = {*MACROS, "watch"}
    wrong = [
        f"{one.where}: htlease-dag {kind}"
        for one in PRINTED
        for found in _HTLEASE_DAG.finditer(one.text)
        for kind in found[1].split("|")
        if kind not in kinds
    ]
    assert not wrong, "\n".join(wrong)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    wrong = [
        f"{one.where}: make {target}"
        for one in PRINTED
        for found in _MAKE.finditer(one.text)
        for target in found[1].split()
        if target not in targets
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_that_python_runs_exist() -> None:
    wrong = [
        f"{one.where}: python -m {found[1]}"
        for one in PRINTED
        for found in _MODULE.finditer(one.text)
        if importlib.util.find_spec(found[1]) is None
    ]
    assert not wrong, "\n".join(wrong)


#: Pages with a table of verbs, whose first column leaves their program out.
VERBS_OF = {"cli/README.md": HTLEASE, "lab/README.md": HTLEASE.verbs["pool"]}
_FIRST_CELL = re.compile(r"^\| (`.*?`) \|", re.MULTILINE)


@pytest.mark.parametrize("page", VERBS_OF)
def test_tables_of_verbs_name_each_verb_that_there_is(page: str) -> None:
    program = VERBS_OF[page]
    text = (PROJECT / page).read_text()
    table = re.search(r"^\| *(?:command|verb) *\|.*?(?=\n\n)", text, re.DOTALL | re.M | re.I)
    assert table
    printed = [
        one.text for cell in _FIRST_CELL.findall(table[0]) for one in spans(page, cell) if one.text
    ]
    wrong = {text: unknown for text in printed if (unknown := unknown_words(text, program))}
    assert not wrong
    named = {verb for text in printed for verb in text.split()[0].split("|")}
    assert program.verbs.keys() <= named


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("list run7 --json", []),
        ("--server URL list --all", []),
        ("list run7 --jsonn", ["--jsonn"]),
        ("relay --server URL", ["relay"]),
        ("dag hold|release DAG", []),
        ("dag hold|unhold DAG", ["unhold"]),
        ("dag status DAG... [--follow]", []),
        ("pool run condor_submit -spool my.sub", []),
        ("pool run --shell", ["--shell"]),
        ("serve --listen=[::1]:8620 --nonsense", ["--nonsense"]),
    ],
)
def test_what_is_unknown_is_found(text: str, unknown: list[str]) -> None:
    assert unknown_words(text) == unknown


def test_the_manual_prints_many_commands() -> None:
    assert sum(1 for one in PRINTED for _ in commands(one, _HTLEASE)) > 200
