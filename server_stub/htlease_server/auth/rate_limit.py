"""How many requests one token may send: a bucket for each, filled at a steady rate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

#: Requests a second of one token where the administrator says nothing: ten times what a thousand
#: running jobs send, and an eighth of what one server can do.
RATE_DEFAULT_PER_SECOND = 500.0
#: What a token may send at once after a rest, in seconds of its rate.
BURST_SECONDS = 10.0
#: Tokens whose buckets are remembered; one that was forgotten starts with a full bucket.
TOKENS_MAX = 20_000


class RateLimiter:
    """Buckets by actor; `now` is a monotonic clock."""

    def __init__(self, per_second: float, now: Callable[[], float]) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * BURST_SECONDS)
        self._now = now
        #: Actor -> (tokens left, when that was counted); used last comes last.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, actor: str) -> float:
        """Take one from an actor's bucket and return 0.0, or say when there will be one again."""
        now = self._now()
        left, at = self._buckets.pop(actor, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        is_enough = left >= 1.0
        self._buckets[actor] = (left - 1.0 if is_enough else left, now)
        if len(self._buckets) > TOKENS_MAX:
            self._buckets.popitem(last=False)
        return 0.0 if is_enough else (1.0 - left) / self._per_second
