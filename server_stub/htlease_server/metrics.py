"""Counters of the server in the text format of Prometheus; they name no workflow."""

from __future__ import annotations

from htlease_server.ledger import Ledger


def metrics_text(ledger: Ledger) -> str:
    """Return the counters as they are now."""
    lines = ["# TYPE htlease_requests_total counter"]
    lines += [
        f'htlease_requests_total{{call="{call}",result="{result}"}} {count}'
        for (call, result), count in sorted(ledger.counts.copy().items())
    ]
    for name, kind, value in (
        ("htlease_commits_total", "counter", ledger.commits),
        ("htlease_queued_requests", "gauge", ledger.queued),
        ("htlease_cached_subjobs", "gauge", len(ledger.cache)),
        ("htlease_unflushed_renewals", "gauge", len(ledger.cache.unflushed)),
        ("htlease_store_failing", "gauge", int(ledger.failure is not None)),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
    return "\n".join(lines) + "\n"
