"""What the server counts as it works, kept so that one request costs a fifth of a microsecond.

The counters of prometheus-client take 2.6 us for a labelled counter and histogram, so they are
made from these only when somebody scrapes (`metrics`). Each object has one thread that adds;
others read at any time, and may see one request of a histogram in its sum but not in its count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

REQUEST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH_REQUESTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


#: Causes for which a request is refused that the writer has not seen.
RATE_LIMIT, LOOK_UPS = "rate-limit", "look-ups"
BUSY = (RATE_LIMIT, LOOK_UPS)


class Histogram:
    """How many values fell into each of some fixed buckets, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        #: Each bucket's largest value; what is larger comes last.
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RequestCounters:
    """Answers by call and code, and how long they took; the event loop's thread adds."""

    def __init__(self) -> None:
        #: (call, `ok` or the code of the refusal) -> how many.
        self.answers: dict[tuple[str, str], int] = {}
        #: Call -> seconds from the request's head to its answer.
        self.seconds: dict[str, Histogram] = {}
        #: Cause -> how many were refused for it.
        self.busy = dict.fromkeys(BUSY, 0)

    def add(self, call: str, code: str, seconds: float) -> None:
        """Count one answer."""
        answered = (call, code)
        self.answers[answered] = self.answers.get(answered, 0) + 1
        histogram = self.seconds.get(call)
        if histogram is None:
            histogram = self.seconds[call] = Histogram(REQUEST_SECONDS)
        histogram.add(seconds)


class CommitCounters:
    """Transactions of the store; the writer's thread adds. `clock`: seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds = Histogram(COMMIT_SECONDS)
        self.requests = Histogram(BATCH_REQUESTS)
        self.failed = 0
        #: When a transaction was last made durable.
        self.written_at = clock()

    def wrote(self, requests: int, seconds: float) -> None:
        """Count a transaction that is durable, and how many requests it answers."""
        self.requests.add(requests)
        self.seconds.add(seconds)
        self.written_at = self._clock()

    def age_seconds(self) -> float:
        """Return how long ago something was last made durable."""
        return max(0.0, self._clock() - self.written_at)
