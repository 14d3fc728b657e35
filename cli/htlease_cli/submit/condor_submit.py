"""Running `condor_submit` on the user's file, which it alone understands; runs on the access point.

It is run once: a `queue ... from COMMAND |` runs its command each time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig, HTLeaseError
from htlease_cli.submit.submit_lines import REFUSAL

_PROGRAM = "condor_submit"
_ANSWER = re.compile(r"^(\d+) job\(s\) submitted to cluster (\d+)\.", re.MULTILINE)
#: What condor_submit says of a refusal of ours.
REFUSAL_SAID = re.compile(rf"{REFUSAL}: (.+)")
#: Its advice, and what it says of our lines: it cannot know what their macros are for, and
#: `TransferInputFiles` is one that we make empty.
_NOT_FOR_THE_USER = re.compile(
    r"WARNING: the line '(?:htlease_\w+ = .*|TransferInputFiles = ?)' was unused"
    r"|To monitor your job\(s\), run: ",
    re.IGNORECASE,
)


class SubmitRefused(HTLeaseError):
    """condor_submit, or the schedd, would not take the jobs."""


@dataclass(frozen=True)
class Answer:
    """What condor_submit said; `job_counts` is by cluster, of what it says it submitted."""

    job_counts: dict[int, int]
    #: Lines for the user, without those that are about lines of ours.
    warnings: tuple[str, ...]


def submit(file: Path, appended: str, options: Sequence[str]) -> Answer:
    """Submit a file with lines appended; raises SubmitRefused, with what condor_submit said.

    An answer may get lost: look in the queue before believing that nothing was queued.
    """
    done = _run(_arguments(file, appended, options))
    out, said = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise SubmitRefused(_refusal(file, said or out))
    return Answer(
        {int(cluster): int(count) for count, cluster in _ANSWER.findall(out)},
        tuple(line for line in said.splitlines() if line and not _NOT_FOR_THE_USER.match(line)),
    )


def submit_interactively(file: Path, appended: str, options: Sequence[str]) -> None:
    """Let condor_submit speak with the user until the session is over; raises SubmitRefused."""
    # What it says of our macros cannot be taken out here.
    done = _run(["-unused", *_arguments(file, appended, options)], is_interactive=True)
    if done.returncode != 0:
        raise SubmitRefused(f"{_PROGRAM} ended with {done.returncode}, as it says above")


def print_dry_run(file: Path, appended: str, options: Sequence[str]) -> None:
    """Print the job ads that would be submitted, in condor_submit's form; raises SubmitRefused."""
    done = _run(["-dry-run", "-", *_arguments(file, appended, options)])
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode != 0:
        raise SubmitRefused(_refusal(file, said))
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    for line in said.splitlines():
        if line and not _NOT_FOR_THE_USER.match(line):
            sys.stderr.write(line + "\n")


def find() -> str:
    """Return the path of condor_submit; raises BadConfig when it is not on PATH."""
    found = shutil.which(_PROGRAM)
    if found is None:
        raise BadConfig(
            f"{_PROGRAM} is not on PATH; `htlease submit` runs where HTCondor's commands are, on a "
            "personal pool as `htlease pool run htlease submit ...`"
        )
    return found


def _run(
    arguments: Sequence[str], is_interactive: bool = False
) -> subprocess.CompletedProcess[bytes]:
    stdin = None if is_interactive else subprocess.DEVNULL
    command = [find(), *arguments]
    try:
        return subprocess.run(command, stdin=stdin, capture_output=not is_interactive)
    except OSError as error:
        raise BadConfig(f"{command[0]} cannot be run: {error.strerror}") from None


def _arguments(file: Path, appended: str, options: Sequence[str]) -> list[str]:
    # The user's own lines come first, so that ours take them in.
    return [*options, "-append", appended, str(file)]


def _refusal(file: Path, said: str) -> str:
    found = REFUSAL_SAID.search(said)
    if found is not None:
        return f"{file}: {found[1].strip()}"
    lines = [line for line in said.splitlines() if not _NOT_FOR_THE_USER.match(line)]
    return f"HTCondor would not take the jobs: {_one_line(' '.join(lines))}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".") or "it does not say why"
