"""`.htlease-hooks/` in the scratch directory: what a start's hooks leave for each other.

A folder, because HTCondor transfers no folder back on its own. It holds a nonce and a token, so
it is the job user's alone (mode 0700).
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

from htlease.condor.private_files import make_private_folder, opened_own, read_own, replace_own
from htlease.errors import BadConfig
from htlease.execution.sandbox_state import HOOKS_FOLDER
from htlease.json_text import json_from
from htlease_hooks.options import Site, site_from

_SITE = "site.json"
_TOKEN = "token"
_PHASE = "phase"
_ENTERED = "entered"
_STOPPED = "stopped"
_LOCK = "update.lock"
_NOTE_MAX_BYTES = 64 * 1024


class HookState:
    """What the hooks of one start have on disk; every write raises OSError."""

    def __init__(self, sandbox: Path) -> None:
        #: Where this start's `.htlease.json` is as long as no wrapper has taken over.
        self.folder = sandbox / HOOKS_FOLDER

    def make(self) -> None:
        """Make the folder."""
        make_private_folder(self.folder)

    def write_site(self, site: Site) -> None:
        """Leave the site's options for hooks that get no arguments."""
        self._write(_SITE, json.dumps(asdict(site)))

    def site(self) -> Site | None:
        """Return the site's options, or None where PREPARE left none."""
        try:
            return site_from(json_from(self._read(_SITE)))
        except (OSError, ValueError, AttributeError, BadConfig):
            return None

    def write_token(self, token: str) -> None:
        """Keep the token for hooks that cannot find it: chirp is not there in all of them."""
        self._write(_TOKEN, token)

    def token(self) -> str | None:
        """Return the token that an earlier hook kept, if one did."""
        try:
            return self._read(_TOKEN) or None
        except (OSError, UnicodeDecodeError):
            return None

    def write_phase(self, phase: str) -> None:
        """Note the phase that is entered once the job runs."""
        self._write(_PHASE, phase)

    def phase(self) -> str | None:
        """Return the phase that is entered once the job runs, if there is just one."""
        try:
            return self._read(_PHASE) or None
        except (OSError, UnicodeDecodeError):
            return None

    @property
    def has_entered(self) -> bool:
        """Tell whether the server knows that the job runs."""
        return (self.folder / _ENTERED).exists()

    def write_entered(self) -> None:
        """Note that the server knows that the job runs."""
        self._write(_ENTERED, "")

    def write_stopped(self, why: str) -> None:
        """Note that the job is about to be stopped, so that its end is not taken for its own."""
        self._write(_STOPPED, why)

    def stopped(self) -> str | None:
        """Return why the job was stopped, if it was."""
        try:
            return self._read(_STOPPED)
        except (OSError, UnicodeDecodeError):
            return None

    def lock(self) -> bool:
        """Take the right to be the one UPDATE call at work, to the end of this process."""
        try:
            descriptor = opened_own(self.folder / _LOCK, os.O_WRONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _write(self, name: str, text: str) -> None:
        replace_own(self.folder / name, text.encode())

    def _read(self, name: str) -> str:
        return read_own(self.folder / name, _NOTE_MAX_BYTES).decode()
