"""How far a DAG is: a bar with the signs of `condor_watch_q`, counts, and a line for each; pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping

BAR_MAX_COLUMNS = 79


class Standing(enum.Enum):
    """Where a node stands; the order is that of the bar."""

    DONE = "done"
    RUNNING = "running"
    TRANSFERRING = "transferring"
    WAITING = "waiting"
    HELD = "held"
    FAILED = "failed"
    NOT_READY = "not ready"


#: Sign and colour. The signs of done, running, transferring, waiting (idle) and of trouble are
#: those of condor_watch_q, whose jobs all are in the queue already. Source: its
#: PROGRESS_BAR_CHARS_AND_COLORS in 25.14.1.
SIGNS: Mapping[Standing, tuple[str, str]] = {
    Standing.DONE: ("#", "green"),
    Standing.RUNNING: ("=", "cyan"),
    Standing.TRANSFERRING: (">", "cyan"),
    Standing.WAITING: ("-", "bright_yellow"),
    Standing.HELD: ("!", "red"),
    Standing.FAILED: ("!", "red"),
    Standing.NOT_READY: (".", "bright_black"),
}
LEGEND = "# done  = running  > transferring  - waiting  ! held, failed  . not ready"


def parts_of_bar(counts: Mapping[Standing, int], columns: int) -> list[tuple[Standing, int]]:
    """Return how many signs of a bar each standing has; whatever there is has one at least.

    `columns` is the whole width, brackets included; with nothing to show the list is empty.
    """
    width = max(len(Standing), min(columns, BAR_MAX_COLUMNS) - 2)
    present = [standing for standing in Standing if counts.get(standing)]
    total = sum(counts[standing] for standing in present)
    to_share = width - len(present)
    lengths = {s: 1 + to_share * counts[s] // total for s in present}
    if present:
        # What rounding left over is the longest part's: there it is seen least.
        longest = max(present, key=lambda standing: lengths[standing])
        lengths[longest] += width - sum(lengths.values())
    return list(lengths.items())


def percent_done(counts: Mapping[Standing, int]) -> int:
    """Return how much is done, rounded down: 100 means all."""
    total = sum(counts.values())
    return 100 * counts.get(Standing.DONE, 0) // total if total else 0


def counts_text(counts: Mapping[Standing, int]) -> str:
    """Return `3 done, 1 running` of what there is."""
    return ", ".join(f"{counts[s]} {s.value}" for s in Standing if counts.get(s)) or "no nodes"


def counted(standings: Iterable[Standing]) -> Counter[Standing]:
    """Return how many nodes stand where."""
    return Counter(standings)


def state_of(counts: Mapping[Standing, int]) -> str:
    """Return what a DAG as a whole is doing, in one word or two."""
    total = sum(counts.values())
    if total and counts.get(Standing.DONE, 0) == total:
        return "complete"
    if counts.get(Standing.RUNNING) or counts.get(Standing.TRANSFERRING):
        return "running"
    for standing in (Standing.HELD, Standing.FAILED, Standing.WAITING):
        if counts.get(standing):
            return str(standing.value)
    return "not begun"
