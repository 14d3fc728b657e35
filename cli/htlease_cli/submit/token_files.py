"""Tokens for jobs in flight: files of mode 0600 that HTCondor carries to the jobs.

`STATE/tokens/EXPIRY-SUBMISSION/PROCESS/htlease.token`, or without `PROCESS` one for all jobs of a
submission whose number is not known before. A directory whose tokens have expired is removed at the
next submission if no job of it is in the queue any more: those need `htlease token renew`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig

#: The wrapper looks for a file of this name in the job's sandbox.
FILE_NAME = "htlease.token"
_GLOBAL_JOB_ID = re.compile(r"(.+#\d+)\.\d+#\d+")
#: Names the schedd that has the jobs, where it is not the one of this machine.
_SCHEDD = "schedd"


@dataclass(frozen=True)
class TokenFiles:
    """The token files of one submission."""

    directory: Path

    @classmethod
    def of(cls, state: Path, submission_id: str, expires_at: float) -> TokenFiles:
        """Name the files of a submission whose tokens expire at `expires_at` (seconds, 1970)."""
        return cls(state / "tokens" / f"{expires_at:.0f}-{submission_id}")

    def path_in_submit_file(self, is_shared: bool) -> str:
        """Return the path as each job has to name it."""
        return str(self.directory / ("" if is_shared else "$(Process)") / FILE_NAME)

    def write(self, process: int | None, token: str) -> None:
        """Write the token of one job, or None: of all; replaces it. Raises BadConfig."""
        place = self.directory / ("" if process is None else str(process))
        temporary = place / f"{FILE_NAME}.new"
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(token + "\n")
            temporary.replace(place / FILE_NAME)
        except OSError as error:
            raise BadConfig(
                f"token file {place / FILE_NAME}: {error.strerror}; give a writable directory "
                "with --token-dir"
            ) from None

    def note_schedd(self, name: str) -> None:
        """Write down which schedd has the jobs; raises BadConfig."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.directory / _SCHEDD).write_text(name)
        except OSError as error:
            raise BadConfig(f"{self.directory / _SCHEDD}: {error.strerror}") from None

    def remove(self) -> None:
        """Remove the files of this submission."""
        shutil.rmtree(self.directory, ignore_errors=True)


def cluster_of(global_job_ids: Iterable[str]) -> str | None:
    """Return `SCHEDD#CLUSTER.*`, to which a token can be limited; None: there are more of them."""
    found = {_GLOBAL_JOB_ID.fullmatch(one) for one in global_job_ids}
    clusters = {match[1] if match else None for match in found}
    cluster = clusters.pop() if len(clusters) == 1 else None
    return None if cluster is None else f"{cluster}.*"


def remove_expired(
    state: Path, now: float, queued_at: Callable[[str | None], Collection[str] | None]
) -> None:
    """Remove the files of submissions whose tokens have expired and whose jobs have gone.

    `queued_at` returns the submissions that a schedd (None: this machine's) has jobs of, or None
    where that is not known.
    """
    for directory in (state / "tokens").glob("*-*"):
        expires_at, _, submission_id = directory.name.partition("-")
        if not expires_at.isdigit() or int(expires_at) >= now:
            continue
        queued = queued_at(_schedd_of(directory))
        if queued is not None and submission_id not in queued:
            shutil.rmtree(directory, ignore_errors=True)


def _schedd_of(directory: Path) -> str | None:
    try:
        return (directory / _SCHEDD).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
