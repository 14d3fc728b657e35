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

from htlease.errors import BadConfig
from htlease_hooks.site import Site, site_from
from htlease_wrapper.sandbox import HOOKS_FOLDER

_SITE = "site.json"
_TOKEN = "token"
_PHASE = "phase"
_ENTERED = "entered"
_STOPPED = "stopped"
_LOCK = "update.lock"


class Notes:
    """The folder of one start; every write raises OSError."""

    def __init__(self, sandbox: Path) -> None:
        #: Where this start's `.htlease.json` is as long as no wrapper has taken over.
        self.folder = sandbox / HOOKS_FOLDER

    def make(self) -> None:
        """Make the folder."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def write_site(self, site: Site) -> None:
        """Leave the site's options for hooks that get no arguments."""
        self._write(_SITE, json.dumps(asdict(site)))

    def site(self) -> Site | None:
        """Return the site's options, or None where PREPARE left none."""
        try:
            return site_from(json.loads((self.folder / _SITE).read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError, BadConfig):
            return None

    def write_token(self, token: str) -> None:
        """Keep the token for hooks that cannot find it: chirp is not there in all of them."""
        self._write(_TOKEN, token)

    def write_phase(self, phase: str) -> None:
        """Note the phase that is entered once the job runs."""
        self._write(_PHASE, phase)

    def phase(self) -> str | None:
        """Return the phase that is entered once the job runs, if there is just one."""
        try:
            return (self.folder / _PHASE).read_text(encoding="ascii") or None
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
            return (self.folder / _STOPPED).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def lock(self) -> bool:
        """Take the right to be the one UPDATE call at work, to the end of this process."""
        try:
            descriptor = os.open(self.folder / _LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        temporary = path.with_name(f"{name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
