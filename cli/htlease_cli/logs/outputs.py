"""Where a job's standard output and error lie, start by start.

HTCondor writes every start's output into one file unless the submit file names one for each:
`output = out.$$([NumJobStarts])`. Source: measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.condor.schedd import Plain

_STARTS = re.compile(r"\$\$\(\[\s*NumJobStarts\s*\]\)", re.IGNORECASE)
TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Output:
    """A file with what a start wrote."""

    #: `stdout` or `stderr`.
    stream: str
    #: The start, 1 = first; None when the file is that of whichever start came last.
    start: int | None
    path: Path


def outputs_of(ad: Mapping[str, Plain], starts: int) -> list[Output]:
    """Return the files that a job's starts may have written, by start and stream."""
    found = []
    for stream, attribute in (("stdout", "Out"), ("stderr", "Err")):
        name = str(ad.get(attribute) or "/dev/null")
        if name == "/dev/null":
            continue
        if not _STARTS.search(name):
            found.append(Output(stream, None, _in_iwd(ad, name)))
            continue
        for start in range(1, starts + 1):
            path = _in_iwd(ad, _STARTS.sub(str(start - 1), name))
            found.append(Output(stream, start, path))
    return sorted(found, key=lambda output: (output.start or starts, output.stream == "stderr"))


def event_log_of(ad: Mapping[str, Plain]) -> Path | None:
    """Return the event log that a job writes: its own, or else that of the DAG it is in."""
    name = ad.get("UserLog") or ad.get("DAGManNodesLog")
    return None if name is None else _in_iwd(ad, str(name))


def _in_iwd(ad: Mapping[str, Plain], name: str) -> Path:
    return Path(str(ad.get("Iwd") or ".")) / name


def tail_of(path: Path, lines: int | None) -> list[str] | None:
    """Return the last lines of a file (None: all of them), or None when it cannot be read."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            whole = lines is None or size_bytes <= TAIL_BYTES
            file.seek(0 if whole else size_bytes - TAIL_BYTES)
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    found = text.splitlines()
    return found if lines is None else found[len(found) - lines :] if lines else []
