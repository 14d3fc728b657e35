"""The details file, by which a payload saves what it needs to resume."""

from __future__ import annotations

from pathlib import Path

from htlease.condor.private_files import make_private_folder, read_own, replace_own
from htlease.execution.sandbox_state import FOLDER
from htlease.rules.messages import DETAILS_MAX_BYTES


class UnusableDetails(Exception):
    """The details cannot be saved; the text says why."""


class DetailsFile:
    """`$HTLEASE_DETAILS`: holds what was saved last; the payload renames new details over it."""

    def __init__(self, sandbox: Path) -> None:
        """Make the private folder; raises OSError."""
        folder = sandbox / FOLDER
        make_private_folder(folder)
        self.path = folder / "details"
        self._seen = self._signature()

    def put(self, details: str | None) -> None:
        """Make the file hold saved details, or be absent; raises OSError."""
        if details is None:
            try:
                self.path.unlink()
            except FileNotFoundError:
                pass
        else:
            replace_own(self.path, details.encode("utf-8"))
        self._seen = self._signature()

    def take_new(self) -> str | None:
        """Return details that the payload has saved since the last call, or None.

        Raises UnusableDetails, once for each version of the file.
        """
        signature = self._signature()
        if signature == self._seen or signature is None:
            return None
        self._seen = signature
        if signature[2] > DETAILS_MAX_BYTES:
            raise UnusableDetails(
                f"{self.path} has {signature[2]} bytes and {DETAILS_MAX_BYTES} is the limit"
            )
        try:
            return read_own(self.path, DETAILS_MAX_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise UnusableDetails(f"{self.path} is not UTF-8 text") from None
        except OSError as error:
            raise UnusableDetails(
                f"{self.path} cannot be read: {error.strerror}; rename a file over it"
            ) from None

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.lstat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
