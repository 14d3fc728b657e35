"""How a Job Router hook reaches the lease server: through the agent of its access point.

The hook runs as the job's owner and has no credential; the agent's unix socket knows by the kernel
who asks. HTCondor gives these hooks no arguments, so the socket is found beside the hook's link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease_hooks.timeout import within

#: Beside the link: the agent's socket, or a symbolic link to it.
SOCKET_NAME = "agent.sock"
SOCKET_DEFAULT = Path("/run/htlease/agent.sock")
#: What an agent or a server that does not answer may cost one call of a hook.
WAIT_SECONDS = 5.0


class NoAgent(Exception):
    """The agent did not do what it was asked; the message says why."""


@dataclass(frozen=True)
class Agent:
    """The agent behind one socket."""

    socket_path: Path
    wait_seconds: float = WAIT_SECONDS

    @classmethod
    def beside(cls, link: Path) -> Agent:
        """Return the agent of the hook that was called by this name."""
        near = link.parent / SOCKET_NAME
        return cls(near if near.exists() else SOCKET_DEFAULT)

    def ask(self, step: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post to `/v1/routes/STEP` and return the answer's document; raises NoAgent."""
        try:
            status, document = within(self.wait_seconds, lambda: self._exchange(step, body))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoAgent(f"the agent at {self.socket_path} does not answer: {why}") from error
        if status != 200:
            raise NoAgent(f"the agent answers {status}: {document.get('detail')}")
        return document

    def _exchange(self, step: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        # Loading it costs as much as all the rest of a call that has nothing to ask.
        from htlease_hooks.unix_http import post

        return post(self.socket_path, f"/v1/routes/{step}", body, self.wait_seconds)
