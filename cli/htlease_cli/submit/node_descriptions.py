"""What HTCondor itself makes of a node's submit description; runs on the access point."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease_cli.submit.condor_submit import REFUSAL_SAID

#: With these looking would run commands of the user's, whose answer may be another at submission.
RUNS_COMMANDS = re.compile(
    rb"^\s*@?include\b[^:\n]*\bcommand\b|^\s*queue\b.*\|\s*$", re.IGNORECASE | re.MULTILINE
)
_RANGE = re.compile(rb"^(\d+)\.(\d+) - \1\.(\d+)$", re.MULTILINE)
_ATTRIBUTE = re.compile(rb"^(\w+)=(.*)$", re.MULTILINE)
_LOOK_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """What a description comes to."""

    job_count: int
    #: Attributes of the first job, as HTCondor writes them: texts in quotes.
    ad: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return the text of an attribute; empty where it has none."""
        return self.ad.get(name, "").strip('"')

    @property
    def dagman_takes_slices(self) -> bool:
        """Tell whether DAGMan of this version takes the items that a slice says, and no others.

        Source: measured; 23.9.6 takes all of them, 25.14.1 does as condor_submit does.
        """
        found = re.search(r"(\d+)\.\d+\.\d+", self.text("CondorVersion"))
        return found is not None and int(found[1]) >= 25


def look(text: bytes, directory: Path, macros: Mapping[str, str]) -> Seen | None:
    """Return what `condor_submit -dry-run` makes of it; None where it cannot be asked, or refuses.

    It must run no commands (RUNS_COMMANDS). It may refuse what it takes later on: a program can be
    the work of an earlier node.
    """
    done = _dry_run(text, directory, macros, {})
    if done is None or done.returncode != 0:
        return None
    count = sum(int(last) - int(first) + 1 for _, first, last in _RANGE.findall(done.stdout))
    first_job = done.stdout.partition(b"\nProcId=")[0]
    ad = {
        name.decode(): value.decode("utf-8", "surrogateescape")
        for name, value in _ATTRIBUTE.findall(first_job)
    }
    return Seen(count, ad) if count else None


def refusal_of(
    text: bytes, directory: Path, macros: Mapping[str, str], appended: Mapping[str, str]
) -> str | None:
    """Return the sentence of htlease's own by which HTCondor refuses these additions, if it does.

    `macros` come before the description, `appended` after it.
    """
    done = _dry_run(text, directory, macros, appended)
    found = None if done is None else REFUSAL_SAID.search(done.stderr.decode("utf-8", "replace"))
    return found[1].strip() if found else None


def condor_version() -> tuple[int, ...] | None:
    """Return the version of condor_submit, e.g. (23, 9, 6); None where there is none."""
    try:
        done = subprocess.run(
            ["condor_submit", "-version"], capture_output=True, text=True, timeout=_LOOK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else None


def _dry_run(
    text: bytes, directory: Path, macros: Mapping[str, str], appended: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes] | None:
    given = [f"{name}={value}" for name, value in macros.items()]
    for name, value in appended.items():
        given += ["-a", f"{name}={value}"]
    try:
        return subprocess.run(
            # As DAGMan does, it does not look whether files are there that a node may make.
            ["condor_submit", "-terse", "-disable", "-dry-run", "-", *given, "-"],
            cwd=directory,
            input=text,
            capture_output=True,
            timeout=_LOOK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
