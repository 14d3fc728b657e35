"""The lease of a clean-up's job: the wrapper in front of a program of local universe.

HTCondor may run a job of local universe again that has ended (its end is in the log before the
queue has it), and a clean-up is to be done once. So `My.Cmd` names a script that calls the wrapper
with the user's program; the arguments of the submit file reach it as they are.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from htlease.condor import schedd
from htlease.condor.submit_description import is_wrapper
from htlease.errors import BadConfig
from htlease_cli.staging.dag_text import CLEAN_UP, Layout

#: Of the wrapper: no lease yet, or no server.
_EXIT_LATER = 75
#: A clean-up that kills itself should not do so for ever.
_STARTS_MAX = 6
_ON_EXIT = ("on_exit_remove", "OnExitRemove")
#: The names of two commands. Source: submit_utils.cpp.
_UNIVERSE, _EXECUTABLE = ("universe", "JobUniverse"), ("executable", "Cmd")
#: As a submit file may write it. Source: condor_universe.h.
_LOCAL = ("local", "12")


@dataclass(frozen=True)
class Lease:
    """What is put in front of the clean-up."""

    script: Path
    text: str
    #: Whether the job's own `on_exit_remove` stands.
    leaves_exit: bool

    def variables(self) -> str:
        """Return what DAGMan adds to the job: a FINAL node has no RETRY, so the job runs again."""
        added = [f'My.Cmd="\\"{self.script}\\""']
        if not self.leaves_exit:
            cut_off = f"ExitBySignal =?= true || ExitCode =?= {_EXIT_LATER}"
            expression = f"!({cut_off}) || NumJobStarts >= {_STARTS_MAX}"
            added.append(f'on_exit_remove="{expression}"')
        return f"VARS {CLEAN_UP} APPEND {' '.join(added)}"


@dataclass(frozen=True)
class Program:
    """What the clean-up runs."""

    path: Path
    #: The submit file says itself after which exits the job leaves the queue.
    has_own_exit: bool


def local_program(submit: Path) -> Program | None:
    """Return the program of a job in local universe that has no wrapper; raises BadConfig.

    A job elsewhere brings its wrapper itself, as a compute job does.
    """
    names = (*_UNIVERSE, *_EXECUTABLE, *_ON_EXIT)
    try:
        found = schedd.expanded(submit.read_text(), names)
    except (OSError, ValueError) as error:
        raise BadConfig(f"{submit}: {error}") from None
    universe = next((found[name].lower() for name in _UNIVERSE if found[name]), "")
    executable = next((found[name] for name in _EXECUTABLE if found[name]), "")
    if universe not in _LOCAL or not executable or is_wrapper(executable):
        return None
    path = submit.parent.absolute() / executable
    return Program(path, any(found[name] for name in _ON_EXIT))


def lease_of(layout: Layout, program: Program, pyz: Path, server: str) -> Lease:
    """Return the script that takes the lease and runs the program."""
    script = layout.clean_up_script.absolute()
    token = layout.names.notes / "tokens" / CLEAN_UP / "htlease.token"
    run = [
        *(str(pyz), "run", "--server", server, "--phase-name", CLEAN_UP, "--restart", "once"),
        *("--ttl", f"{layout.file.watching.ttl_seconds:g}", "--", str(program.path)),
    ]
    return Lease(
        script,
        f"""#!/bin/sh
{layout.mark}
# HTCondor may run this job twice; under its lease the clean-up is done once.
umask 077
cp {shlex.quote(str(token))} "$_CONDOR_SCRATCH_DIR/htlease.token" || exit {_EXIT_LATER}
exec {shlex.join(run)} "$@"
""",
        program.has_own_exit,
    )
