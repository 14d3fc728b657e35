"""What the wrapper tells people: one line each on stderr, in one write, never a failure."""

from __future__ import annotations

import os


class Console:
    """Writes `htlease: SUBJOB attempt N: text` lines."""

    def __init__(self) -> None:
        #: Set as soon as known, so that each later line says whom it is about.
        self.subjob: str | None = None
        self.attempt_number: int | None = None
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Write one line."""
        about = ""
        if self.subjob is not None:
            attempt = "" if self.attempt_number is None else f" attempt {self.attempt_number}"
            about = f"{self.subjob}{attempt}: "
        line = f"htlease: {about}{' '.join(text.split())}\n"
        try:
            os.write(2, line.encode(errors="backslashreplace"))
        except OSError:
            pass  # nobody reads stderr; the payload must not suffer for that

    def say_once(self, topic: str, text: str) -> None:
        """Write one line unless this topic was spoken of before."""
        if topic not in self._said:
            self._said.add(topic)
            self.say(text)

    def forget(self, topic: str) -> None:
        """Let a topic be spoken of again."""
        self._said.discard(topic)
