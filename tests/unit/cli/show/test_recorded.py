"""A history recorded on a pool (HTCondor 23.9.6): evicted in compute, then the shadow killed.

The second and third attempts carry the same `NumJobStarts`.
"""

from __future__ import annotations

import json
from pathlib import Path

from htlease_cli.show.explain import explain
from htlease_cli.show.timeline import COLUMNS, timeline

RECORDED = Path(__file__).parent / "recorded"


def test_a_recorded_run_is_told_as_it_happened() -> None:
    events = json.loads((RECORDED / "evicted_then_shadow_killed.json").read_text())["events"]
    stories = explain(events)
    assert [str(story.attempt_id).rpartition("@")[2] for story in stories] == ["1.1", "2.2", "2.4"]
    for number, story in enumerate(stories[:2], 1):
        assert f"with fence {number}" in story.sentences[0]
        assert story.sentences[-1].endswith("it gave the lease up: asked to end by SIGTERM.")
    assert "because attempt 2 had given the lease up" in stories[2].sentences[0]
    assert stories[2].sentences[-1].endswith("its last phase is once and complete.")

    rows = [dict(zip(COLUMNS, row, strict=True)) for row in timeline(events).rows]
    assert len(rows) == len(events)
    entered = [(row["ATTEMPT"], row["PHASE"]) for row in rows if row["WHAT HAPPENED"] == "entered"]
    assert entered == [
        ("1", "stage-in"), ("1", "compute"), ("2", "stage-in"), ("2", "compute"),
        ("3", "stage-in"), ("3", "compute"), ("3", "stage-out"),
    ]  # fmt: skip
    assert {row["HOST"] for row in rows if row["ATTEMPT"]} == {"ep2.adm.pool"}
