"""What is known of a server that does not answer: since when, when to ask again, what was said."""

from __future__ import annotations

from htlease.wire.retry import Clock
from htlease_wrapper.console import Console

BACKOFF_FIRST_SECONDS = 0.25
BACKOFF_MAX_SECONDS = 10.0
#: One lost reply is no news.
NEWS_SECONDS = 3.0


class Absence:
    """Whether the server is away, to one wrapper; monotonic clock throughout."""

    def __init__(self, clock: Clock, console: Console, is_told: bool = False) -> None:
        """`is_told`: it is away from the start on, and whoever reads the messages knows."""
        #: Since when the server has not answered; None while it does.
        self.since: float | None = clock.monotonic() if is_told else None
        #: Not to be asked before.
        self.retry_at = 0.0
        #: How often it has answered, but with a refusal of the token.
        self.denials = 0
        self._clock = clock
        self._console = console
        self._is_told = is_told
        self._failures = 0

    def note(self, text: str, ttl_seconds: float) -> None:
        """Note that it does not answer, and say so once it lasts."""
        now = self._clock.monotonic()
        self.since = now if self.since is None else self.since
        if now - self.since >= NEWS_SECONDS:
            self._is_told = True
            self._console.say_once("away", f"{text}; updates are kept and sent later")
        self.back_off(ttl_seconds)

    def back_off(self, ttl_seconds: float) -> None:
        """Put the next try off, longer after each failure, but not for most of a lease."""
        self._failures += 1
        most = min(BACKOFF_MAX_SECONDS, ttl_seconds / 8)
        step = min(most, BACKOFF_FIRST_SECONDS * 2 ** min(self._failures, 10))
        self.retry_at = self._clock.monotonic() + step * (0.5 + self._clock.random() / 2)

    def end(self) -> None:
        """Note that it answers."""
        self._failures = 0
        self.retry_at = 0.0
        if self.since is None:
            return
        seconds = self._clock.monotonic() - self.since
        self.since = None
        if self._is_told:
            self._is_told = False
            self._console.say(f"the server answers again after {seconds:.0f} s")
            self._console.forget("away")
