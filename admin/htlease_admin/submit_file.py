"""Rewriting a submit description so that its jobs run under the wrapper; pure, no bindings.

The payload stays what it was: executable, arguments (in either quoting), input files and item
lists come through unchanged. Only what is put in front of them, and beside them, is new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from htlease.errors import InvalidField
from htlease_admin.queue_statement import UNIT_SEPARATOR

#: The universes whose jobs a wrapper can run in front of.
_WITH_TRANSFER = ("vanilla", "docker", "container")
_WITHOUT_TRANSFER = ("local",)
_WRAPPER_NAME = re.compile(r"htlease-ep[^/]*\.pyz")
#: What neither quoting of arguments nor a list of files takes without further ado.
_AWKWARD = re.compile(r"""[\s'",;]""")
#: By any of these a job says itself when it wants to run again.
_REQUEUE_COMMANDS = ("on_exit_remove", "max_retries", "retry_until", "success_exit_code")
#: 75 is the wrapper's own code for: no lease, or no server, in the time allowed. A payload may
#: have it as its own, so that there is an end to the tries.
_ON_EXIT_REMOVE = "ExitCode =!= 75 || (NumJobCompletions ?: 0) >= 10"
#: 79 is the wrapper's for: had its wall time. 46 and 47 are the hold codes of allowed_job_duration
#: and allowed_execute_duration. Measured on 23.9.6 and 25.14.1.
_HELD_BY_LIMIT = "JobStatus == 5 && (HoldReasonCode == 46 || HoldReasonCode == 47)"
_ON_WALL_TIME: Mapping[str, Mapping[str, str]] = {
    "next-attempt": {"periodic_release": _HELD_BY_LIMIT},
    "hold": {
        "on_exit_hold": "ExitCode =?= 79",
        "on_exit_hold_reason": '"walltime: the job has had its time; release it for the next"',
        "on_exit_hold_subcode": "79",
    },
    "fail": {"periodic_remove": _HELD_BY_LIMIT},
}
_CLUSTER = re.compile(r"\$\((?:cluster|clusterid)\)", re.IGNORECASE)


class Commands(MutableMapping[str, str]):
    """The commands of a submit description; names have no case but keep their spelling."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        self._spelled = {name.lower(): (name, value) for name, value in commands.items()}

    def __getitem__(self, name: str) -> str:
        return self._spelled[name.lower()][1]

    def __setitem__(self, name: str, value: str) -> None:
        spelling = self._spelled.get(name.lower(), (name, ""))[0]
        self._spelled[name.lower()] = (spelling, value)

    def __delitem__(self, name: str) -> None:
        del self._spelled[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return (spelling for spelling, _ in self._spelled.values())

    def __len__(self) -> int:
        return len(self._spelled)


@dataclass(frozen=True)
class Description:
    """A submit description with its queue statement worked out."""

    commands: Commands
    #: Jobs for each item, or jobs in all when there are no items.
    count: int = 1
    items: tuple[Mapping[str, str], ...] | None = None

    @property
    def job_count(self) -> int:
        """How many jobs it queues."""
        return self.count * (1 if self.items is None else len(self.items))

    def text(self) -> str:
        """Return it as a submit file."""
        lines = [f"{name} = {value}" for name, value in self.commands.items()]
        if self.items is None:
            return "\n".join([*lines, f"queue {self.count}"]) + "\n"
        names = list(self.items[0]) if self.items else []
        lines.append(f"queue {self.count} {','.join(names)} from (")
        for item in self.items:
            *others, last = (item[name] for name in names)
            # Else a comma or space would end a value too early.
            is_plain = not any(re.search(r"[\s,]", value) for value in others)
            lines.append("    " + (", " if is_plain else UNIT_SEPARATOR).join([*others, last]))
        return "\n".join([*lines, ")"]) + "\n"


@dataclass(frozen=True)
class Wrapping:
    """What is put around the payload."""

    pyz: Path
    server_url: str
    #: For jobs that name no key of their own.
    workflow: str
    #: May hold macros, since each job gets its own.
    token_path: str
    plan_path: Path | None
    #: The plan says what each phase runs, so that the executable is only an input file.
    plan_has_commands: bool
    ttl_seconds: float | None
    #: Where the submit command runs: relative executables start there, not at `initialdir`.
    submit_directory: Path
    #: Marks the jobs of one submission, so that they can be found when its answer is lost.
    submission_id: str
    #: What follows a limit on run time, one of ON_WALL_TIME; None: the plan says nothing of it.
    on_wall_time: str | None = None


def wrap(description: Description, wrapping: Wrapping) -> Description:
    """Return the description with the wrapper in front; raises InvalidField naming the command."""
    commands = Commands(description.commands)
    universe = _universe(commands)
    if universe not in _WITH_TRANSFER + _WITHOUT_TRANSFER:
        raise InvalidField(
            "universe",
            f"{universe} jobs cannot run under the wrapper; vanilla, docker, container, local can",
        )
    executable = commands.get("executable", "").strip()
    if not executable:
        raise InvalidField("executable", "is missing; the wrapper needs a program to run")
    is_transferred = sends_files(commands)
    if is_transferred:
        commands["should_transfer_files"] = "YES"
    if not is_wrapper(executable):
        _put_in_front(commands, executable, is_transferred, wrapping)
    elif wrapping.plan_path or wrapping.ttl_seconds:
        raise InvalidField(
            "executable", f"{executable} is the wrapper already; its options belong in `arguments`"
        )
    if is_transferred:
        _add_input(commands, wrapping.token_path)
    else:
        _add_environment(commands, "BEARER_TOKEN_FILE", wrapping.token_path)
    if not any(name in commands for name in _REQUEUE_COMMANDS):
        commands["on_exit_remove"] = _ON_EXIT_REMOVE
        if wrapping.on_wall_time == "next-attempt":
            commands["on_exit_remove"] = f"ExitCode =!= 79 && ({_ON_EXIT_REMOVE})"
    for name, value in _ON_WALL_TIME.get(wrapping.on_wall_time or "", {}).items():
        if name not in commands:  # the user's own stands
            commands[name] = value
    commands["MY.HTLeaseKey"] = _key_expression(commands, wrapping.workflow)
    commands["MY.HTLeaseSubmission"] = f'"{wrapping.submission_id}"'
    return replace(description, commands=commands)


def sends_executable(commands: Commands) -> bool:
    """Tell whether the payload's program travels as an input file, where it keeps its mode."""
    return (
        sends_files(commands)
        and not _is_no(commands, "transfer_executable")
        and not is_wrapper(commands.get("executable", ""))
    )


def _universe(commands: Commands) -> str:
    return commands.get("universe", "vanilla").strip().lower()


def sends_files(commands: Commands) -> bool:
    """Tell whether the jobs run in sandboxes to which HTCondor transfers files."""
    return _universe(commands) in _WITH_TRANSFER and not _is_no(commands, "should_transfer_files")


def is_wrapper(executable: str) -> bool:
    """Tell whether an `executable` is the wrapper itself."""
    return _WRAPPER_NAME.fullmatch(PurePosixPath(executable.strip()).name) is not None


def _put_in_front(
    commands: Commands, executable: str, is_transferred: bool, wrapping: Wrapping
) -> None:
    words = ["run", "--server", wrapping.server_url]
    if wrapping.ttl_seconds is not None:
        words += ["--ttl", f"{wrapping.ttl_seconds:g}"]
    if wrapping.plan_path is not None:
        name = wrapping.plan_path.name
        words += ["--plan", name if is_transferred else str(wrapping.plan_path)]
        if is_transferred and not _has_input(commands, name):
            _add_input(commands, str(wrapping.plan_path))
    program = _program(commands, executable, is_transferred, wrapping.submit_directory)
    commands["executable"] = str(wrapping.pyz)
    if "transfer_executable" in commands:
        commands["transfer_executable"] = "true"
    for other in ("arguments2", "args", "MY.Args", "MY.Arguments"):
        if other in commands:
            raise InvalidField(other, "write it as `arguments`, so that it can be kept exactly")
    arguments = commands.get("arguments", "").strip()
    if not wrapping.plan_has_commands:
        words += ["--", program]
    elif arguments.strip('"'):
        raise InvalidField(
            "arguments",
            f"plan {wrapping.plan_path} says what each phase runs, so {arguments} would never be "
            "used; leave it out, or take run out of every phase",
        )
    commands["arguments"] = arguments_after(words, arguments)


def _program(commands: Commands, executable: str, is_transferred: bool, directory: Path) -> str:
    """Return the word by which the wrapper runs the payload, having it transferred if it was."""
    has_macro = "$(" in executable or "$F" in executable
    if not has_macro and _AWKWARD.search(executable):
        raise InvalidField(
            "executable",
            f"{executable!r} has a space, quote, comma or semicolon in it; give it a plain name",
        )
    if is_transferred and _is_no(commands, "transfer_executable"):
        return executable if executable.startswith(("/", "$")) else f"./{executable}"
    absolute = executable if executable.startswith(("/", "$")) else str(directory / executable)
    if not is_transferred:
        return absolute
    _add_input(commands, absolute)
    if not has_macro:
        return f"./{PurePosixPath(executable).name}"
    commands["htlease_executable"] = executable
    return "./$Fnx(htlease_executable)"


def arguments_after(words: list[str], arguments: str) -> str:
    """Return `arguments` with words before it, in the quoting that it has.

    New quoting is the whole in double quotes, with single quotes around what has spaces; old
    quoting is bare words. Source: htcondor-jdl, `arguments`.
    """
    arguments = arguments.strip()
    is_new = arguments.startswith('"')
    for word in words:
        if re.search(r"""[\s'"]""", word):
            raise InvalidField(
                "arguments", f"{word!r} has a space or quote in it; give it a plain name"
            )
    front = " ".join(words)
    if is_new:
        return f'"{front} {arguments[1:].lstrip()}'
    return f"{front} {arguments}".rstrip()


def _key_expression(commands: Commands, workflow: str) -> str:
    """Return the expression for `HTLeaseKey`: the job's own, its macro's, or workflow/process."""
    own = commands.get("MY.HTLeaseKey", "").strip()
    if own and not re.fullmatch(r'"[^"]+"', own):
        raise InvalidField("HTLeaseKey", f'{own} is not a text in double quotes like "run7/s-12"')
    key = own.strip('"') or commands.get("HTLeaseKey", "").strip().strip('"')
    if _CLUSTER.search(key):
        raise InvalidField(
            "HTLeaseKey", "uses $(Cluster), which is not known before the jobs are enrolled"
        )
    if not key:
        return f'"{workflow}/$(Process)"'
    if "HTLeaseKey" in commands and not own:
        key = "$(HTLeaseKey)" if "/" in key else f"{workflow}/$(HTLeaseKey)"
    elif "/" not in key:
        key = f"{workflow}/{key}"
    return f'"{key}"'


def _is_no(commands: Commands, name: str) -> bool:
    return commands.get(name, "").strip().lower() in ("no", "false", "never", "f", "0")


def _inputs(commands: Commands) -> list[str]:
    listed = commands.get("transfer_input_files", "").strip().strip('"')
    return [entry.strip() for entry in listed.split(",") if entry.strip()]


def _has_input(commands: Commands, name: str) -> bool:
    return any(PurePosixPath(entry).name == name for entry in _inputs(commands))


def _add_input(commands: Commands, path: str) -> None:
    commands["transfer_input_files"] = ", ".join([*_inputs(commands), path])


def _add_environment(commands: Commands, name: str, value: str) -> None:
    """Add a variable in the quoting that `environment` has; old quoting separates by `;`."""
    if _AWKWARD.search(value):
        raise InvalidField("environment", f"{value!r} has a space or quote in it; name another")
    before = commands.get("environment", "").strip()
    if not before or before.startswith('"'):
        commands["environment"] = (
            f'"{name}={value} {before[1:].lstrip()}' if before else (f'"{name}={value}"')
        )
    else:
        commands["environment"] = f"{before.rstrip(';')};{name}={value}"
