"""Who is at the other end of a unix socket, as the kernel says."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class PeerCredentials:
    """A process on this machine."""

    pid: int
    uid: int

    @classmethod
    def of(cls, connection: socket.socket) -> PeerCredentials:
        """Return who opened a connection; raises OSError."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(raw)
        return cls(pid, uid)

    def may_speak_for(self, owner: str) -> bool:
        """Tell whether this peer is the owner, root, HTCondor, or whoever runs the agent."""
        if self.uid in (0, os.geteuid()):
            return True
        return self.uid in (_uid_of(owner), _uid_of("condor"))


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
