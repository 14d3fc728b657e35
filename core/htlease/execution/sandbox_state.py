"""`.htlease.json` in the scratch directory: the lease that this start's processes share.

It holds the nonce, so it is readable by the job's user only, and it is believed only by the start
that wrote it: HTCondor may carry it into another sandbox (`ON_EXIT_OR_EVICT`), where believing it
would make two holders of one lease.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from htlease.condor.private_files import (
    make_private_folder,
    opened_own,
    read_own,
    remove_private_folder,
    replace_own,
)
from htlease.execution.processes import start_ticks
from htlease.json_text import json_from

STATE_FILE = ".htlease.json"
#: A private folder for the details file; HTCondor does not transfer folders back on its own.
FOLDER = ".htlease"
#: Where starter hooks keep theirs, `.htlease.json` included: they cannot take it away in the end.
HOOKS_FOLDER = ".htlease-hooks"
#: Locked for as long as a wrapper lives.
_ALIVE = "alive"
#: Much more than any state has.
_STATE_MAX_BYTES = 64 * 1024
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class StartId:
    """What names one start in one sandbox on one boot of one machine."""

    global_job_id: str | None
    num_job_starts: int | None
    num_shadow_starts: int | None
    sandbox: str
    boot_id: str | None

    def is_start_of(self, other: StartId) -> bool:
        """Tell whether both name one start, though a container may call its sandbox otherwise."""
        return self.is_known and replace(self, sandbox=other.sandbox) == other

    @property
    def is_known(self) -> bool:
        """Tell whether it names a start at all, so that equality means something."""
        return None not in (self.global_job_id, self.boot_id)


@dataclass(frozen=True)
class SandboxState:
    """What the processes of one start hand to each other."""

    start: StartId
    #: How many wrapper processes this sandbox has seen.
    sandbox_seq: int
    nonce: str = field(repr=False)
    key: str
    #: The wrapper that wrote this, and when it started (clock ticks since boot).
    pid: int
    pid_started: int | None
    server: str
    #: None until the lease is granted.
    fence: int | None = None
    attempt_number: int | None = None

    @property
    def is_in_use(self) -> bool:
        """Tell whether the wrapper that wrote this is still running."""
        return self.pid_started is not None and start_ticks(self.pid) == self.pid_started


def boot_id() -> str | None:
    """Return what names the current boot of this machine, or None."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


def read_state(sandbox: Path) -> SandboxState | None:
    """Read `.htlease.json`, or the one that starter hooks left; None when there is none of ours.

    The hooks' folder cannot have come from another sandbox; in a container its path is another.
    """
    state = _read(sandbox)
    if state is None and (of_hooks := _read(sandbox / HOOKS_FOLDER)) is not None:
        state = replace(of_hooks, start=replace(of_hooks.start, sandbox=str(sandbox)))
    return state


def _read(folder: Path) -> SandboxState | None:
    try:
        document = json_from(read_own(folder / STATE_FILE, _STATE_MAX_BYTES))
        start = StartId(**_known(StartId, document.pop("start")))
        return SandboxState(start=start, **_known(SandboxState, document))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _known(cls: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a document has; raises TypeError for one that is of another type."""
    found = {}
    for part in fields(cls):
        if part.name not in document:
            continue
        value, names = document[part.name], str(part.type).split(" | ")
        if type(value).__name__.replace("NoneType", "None") not in names:
            raise TypeError(part.name)
        found[part.name] = value
    return found


def inherited(state: SandboxState | None, start: StartId) -> SandboxState | None:
    """Return the state if an earlier process of this same start left it, else None.

    That process must be over: two living ones must not share a nonce.
    """
    if state is None or not start.is_known or state.start != start or state.is_in_use:
        return None
    return state


def hold(home: Path) -> int | None:
    """Show to whoever looks from another PID namespace that this wrapper lives; keeps a lock.

    Returns None where files cannot be locked.
    """
    try:
        descriptor = opened_own(home / FOLDER / _ALIVE, os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return descriptor


def is_held(home: Path) -> bool:
    """Tell whether a wrapper lives that has its state in a folder, be its PID seen here or not."""
    try:
        if not (home / FOLDER / _ALIVE).exists():
            return False
        descriptor = opened_own(home / FOLDER / _ALIVE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def home_in(sandbox: Path) -> Path:
    """Return the folder for this wrapper's state: the sandbox, unless another's state is there.

    That other may be the wrapper around the payload that calls us, or one that runs, for all that
    is known here, on another machine with the same shared directory. Raises OSError.
    """
    state = read_state(sandbox)
    is_own = state is not None and state.pid == os.getpid() and state.is_in_use
    if state is None or is_own:
        return sandbox
    if not (state.is_in_use or is_held(sandbox) or _may_live_elsewhere(state, sandbox)):
        return sandbox
    home = sandbox / _own_folder()
    make_private_folder(home)
    return home


def _may_live_elsewhere(state: SandboxState, sandbox: Path) -> bool:
    return state.start.sandbox == str(sandbox) and state.start.boot_id != boot_id()


def _own_folder() -> str:
    return f"{FOLDER}-{os.uname().nodename}-{os.getpid()}"


def next_state(
    before: SandboxState | None, start: StartId, nonce: str, key: str, server: str
) -> SandboxState:
    """Return the state of this process: the lease of the one before it, or a fresh nonce."""
    pid = os.getpid()
    if before is not None and before.key == key:
        return replace(
            before,
            sandbox_seq=before.sandbox_seq + 1,
            pid=pid,
            pid_started=start_ticks(pid),
            server=server,
        )
    return SandboxState(start, 1, nonce, key, pid, start_ticks(pid), server)


def write_state(home: Path, state: SandboxState) -> None:
    """Replace `.htlease.json` in one step, mode 0600; raises OSError."""
    replace_own(home / STATE_FILE, json.dumps(asdict(state), indent=1).encode())


def remove_state(home: Path, nonce: str) -> None:
    """Remove what was kept under a nonce, so that HTCondor does not transfer it.

    A hook's copy goes too: an UPDATE_JOB_INFO that comes late has nothing to renew.
    """
    kept = [
        folder
        for folder in (home, home / HOOKS_FOLDER)
        if (state := _read(folder)) is not None and state.nonce == nonce
    ]
    try:
        for folder in kept:
            (folder / STATE_FILE).unlink()
        if home not in kept:
            return
        remove_private_folder(home / FOLDER)
        if home.name == _own_folder():
            home.rmdir()
    except OSError:
        pass  # never made, or the payload put something of its own there
