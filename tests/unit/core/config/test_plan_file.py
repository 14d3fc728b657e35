"""Plans in TOML and JSON; the many ways to get one wrong are tested on the built pyz."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from htlease.config.plan_file import plan_from_text, read_plan_file
from htlease.errors import BadConfig
from htlease.rules.plan import PhaseSpec, Plan

TOML = """
ttl_seconds = 90
takeover = "immediate"
[[phase]]
name = "stage-in"
run = ["./fetch.sh", "input.dat"]
needs = ["hpss"]
[[phase]]
name = "stage-out"
run = ["./push.sh"]
restart = "once"
exclusive = true
"""


def test_toml_and_json_say_the_same() -> None:
    document = {
        "ttl_seconds": 90,
        "takeover": "immediate",
        "phase": [
            {"name": "stage-in", "run": ["./fetch.sh", "input.dat"], "needs": ["hpss"]},
            {"name": "stage-out", "run": ["./push.sh"], "restart": "once", "exclusive": True},
        ],
    }
    file = plan_from_text(TOML)
    assert file == plan_from_text(json.dumps(document))
    assert file.plan == Plan(
        (PhaseSpec("stage-in", needs=("hpss",)), PhaseSpec("stage-out", "once", True)),
        "immediate",
    )
    assert file.commands == {"stage-in": ("./fetch.sh", "input.dat"), "stage-out": ("./push.sh",)}
    assert file.ttl_seconds == 90


def test_commands_do_not_travel_with_the_plan() -> None:
    assert "fetch" not in repr(plan_from_text(TOML).plan)


def test_phases_without_commands_are_the_payloads_own() -> None:
    file = plan_from_text('[[phase]]\nname = "a"\n[[phase]]\nname = "b"\n')
    assert file.commands == {}
    assert [phase.name for phase in file.plan.phases] == ["a", "b"]


@pytest.mark.parametrize("data", [b"\xff", b"x" * (1 << 21)])
def test_what_is_no_text_or_too_long_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(data)
    with pytest.raises(BadConfig, match=r"plan\.toml"):
        read_plan_file(path)


@pytest.mark.parametrize(("is_sent", "advice"), [(False, "can be read"), (True, "transfer_input")])
def test_a_file_that_is_not_there_is_looked_for_where_it_should_be(
    tmp_path: Path, is_sent: bool, advice: str
) -> None:
    with pytest.raises(BadConfig, match=advice):
        read_plan_file(tmp_path / "none.toml", is_sent=is_sent)


def test_wall_times_stay_with_who_keeps_them_and_the_policy_travels() -> None:
    file = plan_from_text(
        'wall_time_seconds = 3600\non_wall_time = "hold"\n'
        '[[phase]]\nname = "a"\nrun = ["x"]\nwall_time_seconds = 60.5\n'
        '[[phase]]\nname = "b"\nrun = ["x"]\n'
    )
    assert (file.wall_time_seconds, file.phase_wall_times) == (3600, {"a": 60.5})
    assert file.plan == Plan((PhaseSpec("a"), PhaseSpec("b")), on_wall_time="hold")
    assert file.after_wall_time == "hold"


def test_a_limit_without_a_policy_is_followed_by_the_next_attempt() -> None:
    text = '[[phase]]\nname = "a"\nrun = ["x"]\n'
    assert plan_from_text(f"wall_time_seconds = 9\n{text}").after_wall_time == "next-attempt"
    assert plan_from_text(text).after_wall_time is None
