"""What HTCondor itself makes of a node's submit description; runs on the access point."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: With these a dry run would run commands of the user's: a side effect of only looking.
_RUNS_COMMANDS = re.compile(
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

    It may refuse what it takes later on: a program can be the work of an earlier node.
    """
    if _RUNS_COMMANDS.search(text):
        return None
    given = [f"{name}={value}" for name, value in macros.items()]
    try:
        done = subprocess.run(
            ["condor_submit", "-terse", "-dry-run", "-", *given, "-"],
            cwd=directory,
            input=text,
            capture_output=True,
            timeout=_LOOK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    count = sum(int(last) - int(first) + 1 for _, first, last in _RANGE.findall(done.stdout))
    first_job = done.stdout.partition(b"\nProcId=")[0]
    ad = {
        name.decode(): value.decode("utf-8", "surrogateescape")
        for name, value in _ATTRIBUTE.findall(first_job)
    }
    return Seen(count, ad) if count else None
