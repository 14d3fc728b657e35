"""Finds an installed HTCondor, or unpacks Debian's into a private root. Runs on the host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .debian import unpacked
from .errors import PoolError

SUITES = ("trixie", "sid")
DEFAULT_SUITE = "trixie"
_PACKAGES = "condor,python3,procps,ca-certificates"


@dataclass(frozen=True)
class Software:
    """An HTCondor to start daemons from: `root` is None for one installed on this machine."""

    label: str
    root: Path | None


def installed_master() -> str | None:
    """Path of the `condor_master` of this machine, or None."""
    return shutil.which("condor_master") or shutil.which("condor_master", path="/usr/sbin:/sbin")


def provide(suite: str | None, roots: Path, report: Callable[[str], None]) -> Software:
    """Return the HTCondor to use: the installed one if `suite` is None, else Debian's, unpacked.

    Raises PoolError, in one sentence, when neither is possible.
    """
    if suite is None and installed_master():
        return Software("installed", None)
    suite = suite or DEFAULT_SUITE
    if suite not in SUITES:
        raise PoolError(f"HTLEASE_POOL_SUITE is {suite!r}; it can be {' or '.join(SUITES)}.")
    if os.geteuid() != 0:
        raise PoolError(
            "No condor_master is on PATH, and unpacking a private HTCondor needs root: "
            "install HTCondor, or run this command as root."
        )
    return Software(suite, unpacked(suite, _PACKAGES, roots / suite, report))
