"""Tokens for jobs in flight: files of mode 0600 that HTCondor carries to the jobs.

`STATE/tokens/EXPIRY-SUBMISSION/PROCESS/htlease.token`, or without `PROCESS` one for all jobs of a
submission whose number is not known before; a directory whose tokens have expired is
removed at the next submission.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig

#: The wrapper looks for a file of this name in the job's sandbox.
FILE_NAME = "htlease.token"


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

    def remove(self) -> None:
        """Remove the files of this submission."""
        shutil.rmtree(self.directory, ignore_errors=True)


def remove_expired(state: Path, now: float) -> None:
    """Remove the files of submissions whose tokens nobody can use any more."""
    for directory in (state / "tokens").glob("*-*"):
        expires_at = directory.name.partition("-")[0]
        if expires_at.isdigit() and int(expires_at) < now:
            shutil.rmtree(directory, ignore_errors=True)
