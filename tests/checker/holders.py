"""Whether a lease was taken from a holder to whom it was still promised (4 in `explain`)."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from htlease.rules import messages as m
from tests.checker.record import Delivery, Outage, Recording
from tests.checker.steps import Finding, Step

_MOMENT_SECONDS = 0.002


def overlapping(
    recording: Recording, steps: Sequence[Step], outages: Sequence[Outage]
) -> list[Finding]:
    """Return each grant that came too early, and each fence that two holders were given."""
    promised = _promises(recording.deliveries)
    found = []
    for before, step in itertools.pairwise(steps):
        if step.why != "expired" or before.state.holder is None:
            continue
        fence, ttl_seconds = before.state.fence, before.state.holder.ttl_seconds
        until, by = max(promised[fence], key=lambda promise: promise[0], default=(-math.inf, ""))
        over = [outage for outage in outages if outage.started_at < step.before]
        kept = kept_until(promised[fence], ttl_seconds, over)
        if kept > until:
            until, by = kept, f"{over}"
        if step.before < until:
            found.append(
                Finding(
                    "holders",
                    f"{recording.key}: fence {step.state.fence} was granted as expired by"
                    f" {step.before:.3f}, while fence {fence} was promised until {until:.3f} by"
                    f" {by}",
                )
            )
    holders: dict[int, set[str]] = defaultdict(set)
    for delivery in recording.deliveries:
        if isinstance(delivery.command, m.Acquire) and delivery.status == 200:
            holders[delivery.document["fence"]].add(delivery.command.nonce)
    for fence, nonces in holders.items():
        if len(nonces) > 1:
            text = f"{recording.key}: fence {fence} was granted to {len(nonces)} holders"
            found.append(Finding("holders", text))
    return found


def kept_until(
    promises: Sequence[tuple[float, Delivery]], ttl_seconds: float, outages: Sequence[Outage]
) -> float:
    """Return until when the outages keep a lease at least (rule 8).

    The first outage after a promise grants one ttl from its end. While the holder is silent,
    later ones only stretch that by their own length.
    """
    kept, up_since = -math.inf, -math.inf
    for outage in outages:
        sent = [(until, by) for until, by in promises if by.sent_at < outage.down_at]
        live_until = max([kept, *(until for until, _ in sent)])
        if live_until > outage.gone_at:
            if any(up_since < by.sent_at and _renews(by, ttl_seconds) for _, by in sent):
                kept = outage.started_at + ttl_seconds
            else:
                kept = live_until + outage.started_at - outage.gone_at
        up_since = outage.started_at
    return kept


def _renews(delivery: Delivery, ttl_seconds: float) -> bool:
    """Tell an answer that moved the deadline from one that was given before, and came again."""
    seconds: float = delivery.document["expires_in_seconds"]
    return seconds > ttl_seconds - _MOMENT_SECONDS


def _promises(deliveries: Iterable[Delivery]) -> Mapping[int, list[tuple[float, Delivery]]]:
    """Return, for each fence, until when the lease was promised, and by which answer.

    A holder counts from before it asked (rule 9), so the server counts at least that far.
    """
    found: dict[int, list[tuple[float, Delivery]]] = defaultdict(list)
    for delivery in deliveries:
        if delivery.status != 200 or not isinstance(delivery.command, (m.Acquire, m.Renew)):
            continue
        is_grant = isinstance(delivery.command, m.Acquire)
        fence = delivery.document["fence"] if is_grant else delivery.command.fence  # type: ignore[union-attr]
        until = delivery.sent_at + delivery.document["expires_in_seconds"]
        found[fence].append((until, delivery))
    return found
