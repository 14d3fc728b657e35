"""A job's container as the site's wrapper sees it: from outside, in front of the runtime.

HTCondor calls `USER_JOB_WRAPPER apptainer ... exec ... IMAGE EXECUTABLE ARGUMENTS...`. Of each
variable NAME it has made one more, APPTAINERENV_NAME (SINGULARITYENV_NAME), which is all that gets
into the container. In docker universe it calls no wrapper. Source: `Singularity::setup` and
`OsProc::StartJob`; measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PREFIXES = ("APPTAINERENV_", "SINGULARITYENV_")
_SCRATCH = "_CONDOR_SCRATCH_DIR"
#: What names of variables that payloads get from us begin with.
_OURS = "HTLEASE"


@dataclass(frozen=True)
class Container:
    """How to get into it."""

    #: With this before their names variables get into it.
    prefix: str
    #: The scratch directory, and where it is within.
    outside: str
    inside: str
    #: The runtime and its arguments, up to the image; None where they cannot be told from the job.
    entry: tuple[str, ...] | None

    def path(self, text: str) -> str:
        """Return what a path in the scratch directory is called within."""
        is_there = text == self.outside or text.startswith(f"{self.outside}/")
        return self.inside + text[len(self.outside) :] if is_there else text

    def command(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return what runs a command of a plan within; a program's path is made a full one."""
        assert self.entry is not None
        program = argv[0]
        if "/" in program:
            program = posixpath.join(self.inside, program[2:] if program[:2] == "./" else program)
        return (*self.entry, program, *argv[1:])

    def handed_on(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what hands our variables on to the payload, with paths as they are within."""
        return {
            self.prefix + name: self.path(value)
            for name, value in environ.items()
            if name.startswith(_OURS)
        }


def container_of(
    command: Sequence[str], cmd: str | None, environ: Mapping[str, str]
) -> Container | None:
    """Return the container that a job's command line leads into, if it does; pure.

    `cmd` is the job's executable as its ad names it.
    """
    outside = environ.get(_SCRATCH)
    for prefix in _PREFIXES:
        inside = environ.get(prefix + _SCRATCH)
        if outside and inside:
            return Container(prefix, outside, inside, _entry(command, cmd, outside, inside))
    return None


def _entry(
    command: Sequence[str], cmd: str | None, outside: str, inside: str
) -> tuple[str, ...] | None:
    """Return what stands before the job's executable: a file in the sandbox, or in the image."""
    if not cmd:
        return None
    name = posixpath.basename(cmd)
    executables = {posixpath.join(outside, name), posixpath.join(inside, name), cmd}
    for place, word in enumerate(command[1:], start=1):
        if posixpath.normpath(word) in executables:
            return tuple(command[:place])
    return None
