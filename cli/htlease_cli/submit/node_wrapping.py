"""What puts the wrapper in front of a node's program: the lines of submit_lines as VARS; pure.

DAGMan takes VARS before the submit file (PREPEND) or after it (APPEND), and keeps values as they
are: there is no `if`, and a macro that names itself is expanded only if it has a value already,
else HTCondor never comes to the end of it. So each line that takes the user's value in becomes two:
before the file what holds when the user says nothing, after it what is added. What is the same for
all nodes stands there once, as macros that begin with `htlease_`.
Source: DagSubmit, insert_macro; measured on 23.9.6 and 25.14.1, with and without
DAGMAN_USE_DIRECT_SUBMIT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease_cli.submit.exit_policy import exit_policy_lines
from htlease_cli.submit.submit_lines import (
    REFUSAL,
    Additions,
    in_text,
    older_lines,
    unless_refused,
    wrapper_lines,
)
from htlease_dagman.dagfile.include_file import Variables
from htlease_dagman.dagfile.parser import Node

_FILES = (
    "transfer_input_files = $(transfer_input_files:$(TransferInputFiles:))$EVAL(htlease_inputs)"
)
_GUARD = """\
htlease_arguments = $(arguments:$(args:))
htlease_files = $(transfer_input_files)
htlease_first = $SUBSTR(htlease_files,0,1)
htlease_is_bare = isString("$(htlease_first) + $(htlease_first)")
htlease_is_forced = $(MY.TransferInput:undefined) =!= undefined
htlease_guard = {guard}
MY.HTLeaseWrapped = $EVAL(htlease_guard)
"""
#: Attributes of the finished job: what is added by VARS would go before them, or after them.
_FORCED = re.compile(
    r"^\s*(?:\+|MY\.)(Cmd|TransferExecutable|TransferInput)\s*=", re.IGNORECASE | re.MULTILINE
)
_COMMANDS = {
    "cmd": "executable",
    "transferexecutable": "transfer_executable",
    "transferinput": "transfer_input_files",
}
_SHORT_CHARS = 40


@dataclass(frozen=True)
class Wrapping:
    """The lines, as VARS have them."""

    #: For all nodes, to no effect on those that are not wrapped.
    shared: Mapping[str, str]
    #: Before the submit file of a wrapped node.
    defaults: Mapping[str, str]
    #: After it.
    added: Mapping[str, str]


def wrapping(additions: Additions, version: tuple[int, ...]) -> Wrapping:
    """Return the lines for nodes that HTCondor of this version runs under the wrapper."""
    guard = 'ifThenElse({0}, "{REFUSAL}: {1}", {2})'
    chosen = unless_refused('"true"', additions)
    for when, why in (
        ("!$(htlease_is_bare)", "transfer_input_files in quotation marks; write the bare list"),
        ("$(htlease_is_forced)", "+TransferInput; write it as `transfer_input_files`"),
    ):
        chosen = guard.format(when, why, chosen, REFUSAL=REFUSAL)
    return _as_variables(
        (
            *wrapper_lines(additions),
            *older_lines(version),
            _FILES,
            *_GUARD.format(guard=chosen).splitlines(),
            *exit_policy_lines(additions.on_wall_time),
        )
    )


def sending(token: Path) -> Wrapping:
    """Return the lines by which a job is sent its token, and nothing else."""
    files = "transfer_input_files"
    return Wrapping({}, {files: "$(TransferInputFiles:)"}, {files: f"$({files}),{token}"})


def variables_of(node: Node, wrapped: Wrapping, inline: Mapping[str, str] | None) -> Variables:
    """Return what a node gets; `inline` are the commands of its description in the DAG, if it is.

    Before such a description 23.9 has no VARS: all come after it.
    """
    set_by_vars = {name.lower() for name in node.variables}
    set_inline = {name.lower(): value for name, value in (inline or {}).items()}
    defaults, added = {}, dict(wrapped.added)
    for name, default in wrapped.defaults.items():
        if name in set_by_vars:
            continue
        if inline is None:
            defaults[name] = default
            continue
        value = set_inline.get(name, default)
        if name in added:
            added[name] = added[name].replace(f"$({name})", value)
        elif name not in set_inline:
            added[name] = value
    # DAGMan keeps one value for each spelling; HTCondor does not look at case.
    return Variables(
        {f"{name[:-1]}{name[-1].upper()}": value for name, value in defaults.items()},
        ({"htlease_directory": in_text(node.directory)} if wrapped.shared else {})
        | {f"{name[0].upper()}{name[1:]}": value for name, value in added.items()},
    )


def left_alone(text: str, node: Node) -> str | None:
    """Say why a node cannot be wrapped, where its description or its VARS force an attribute."""
    names = [found[1] for found in _FORCED.finditer(text)]
    names += [name for name in map(_forced_name, node.variables) if name]
    if not names:
        return None
    return f"+{names[0]}; write it as `{_COMMANDS[names[0].lower()]}`"


def _forced_name(variable: str) -> str | None:
    found = _FORCED.match(f"{variable}=")
    return found[1] if found else None


def _as_variables(lines: Iterable[str]) -> Wrapping:
    shared: dict[str, str] = {}
    defaults: dict[str, str] = {}
    added: dict[str, str] = {}
    for name, value in _pairs(lines):
        own = re.search(
            rf"\$\({re.escape(name)}(?::((?:[^()]|\$\([^()]*\))*))?\)", value, re.IGNORECASE
        )
        if own is not None:
            defaults[name] = own[1] or ""
            if own[0] != value:
                before = _macro(shared, f"htlease_before_{name}", value[: own.start()])
                after = _macro(shared, f"htlease_after_{name}", value[own.end() :])
                added[name] = f"{before}$({name}){after}"
        elif name.startswith("MY."):
            added[name] = _macro(shared, f"htlease_{name[3:]}", value)
        else:
            shared[name] = value
    return Wrapping(shared, defaults, added)


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition("=")
        yield name.strip(), value.strip()


def _macro(shared: dict[str, str], name: str, value: str) -> str:
    """Return the value, or a reference to where it stands once for all nodes."""
    if len(value) <= _SHORT_CHARS:
        return value
    shared[name] = value
    return f"$({name})"
