"""Until when a maintenance lasts, as people write it."""

from __future__ import annotations

import click
import pytest

from htlease_cli.operate.maintenance import seconds_until

NOW = 1766599200.0  # 2025-12-24 18:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("14d", 14 * 86400),
        ("2025-12-24T19:00Z", 3600),
        ("2025-12-24T19:00", 3600),
        ("2025-12-24T19:00:30+00:00", 3630),
        ("2025-12-24T19:00-05:00", 6 * 3600),
        ("2025-12-25", 6 * 3600),
    ],
)
def test_a_time_or_a_duration_is_taken(text: str, seconds: float) -> None:
    assert seconds_until(text, NOW) == seconds


@pytest.mark.parametrize("text", ["tomorrow", "", "2025-12-24T17:00Z", "2025-13-01"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a time|in the past"):
        seconds_until(text, NOW)
