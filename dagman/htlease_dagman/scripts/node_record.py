"""A record for each node of what its script has done, kept locked while a script is at work.

It lies beside the DAG. DAGMan starts scripts again after a crash, while those before may still
run: the lock tells whether one does, the record what it had come to. A lease cannot do that alone,
since none is given for a subjob that is closed, and the user's own script may still have to run.
"""

from __future__ import annotations

import fcntl
import json
import os


class ScriptState:
    """What one script has come to in one try of its node."""

    def __init__(
        self,
        try_id: str,
        nonce: str | None = None,
        deferrals: int = 0,
        chained: int | None = None,
        exit: int | None = None,
    ) -> None:
        self.try_id = try_id
        #: Of the lease that is held now, for whoever goes on after a crash.
        self.nonce = nonce
        #: How often the script was put off.
        self.deferrals = deferrals
        #: Exit status of the user's own script, once it has run.
        self.chained = chained
        #: Exit status of ours, once all is done.
        self.exit = exit


class Busy(Exception):
    """Another script of this kind is at work on the node."""


class NodeRecord:
    """The open, locked record of one node; closing it, or dying, lets others at it."""

    def __init__(self, path: str, try_id: str) -> None:
        """Open the record; raises Busy, or OSError when the folder cannot be used."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: Whether a nonce in the record belongs to nobody who is alive.
        self.is_alone = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise Busy from None
        except OSError:
            # A file system without locks: the lease alone keeps others out, where there is one.
            self.is_alone = False
        found = _script_state_from(os.pread(self._descriptor, 1 << 16, 0))
        self.script_state = found if found and found.try_id == try_id else ScriptState(try_id)

    def save(self, **changes: object) -> None:
        """Change the state."""
        vars(self.script_state).update(changes)
        # One line, written before the rest is cut off: a crash leaves the old state or the new.
        line = json.dumps(vars(self.script_state)).encode() + b"\n"
        os.pwrite(self._descriptor, line, 0)
        os.ftruncate(self._descriptor, len(line))

    def close(self) -> None:
        """Unlock."""
        os.close(self._descriptor)

    def __enter__(self) -> NodeRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_script_state(path: str) -> ScriptState | None:
    """Return a state as it stands, of whatever try, without locking it."""
    try:
        with open(path, "rb") as file:
            return _script_state_from(file.read())
    except OSError:
        return None


def _script_state_from(data: bytes) -> ScriptState | None:
    try:
        return ScriptState(**json.loads(data.partition(b"\n")[0]))
    except (ValueError, TypeError):
        return None
