"""The lines that htlease adds to a submit file; what HTCondor makes of them is tested with it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from htlease.rules.plan import ON_WALL_TIME
from htlease_cli.submit.submit_lines import Additions, added_lines, appended

ADDITIONS = Additions(
    pyz=Path("/opt/htlease-ep.pyz"),
    server_url="http://leases:8620",
    workflow="sim-1",
    token_path="/home/u/tokens/$(Process)/htlease.token",
    submit_directory=Path("/home/u/my $(files)"),
    submission_id="ab12",
)


def values(additions: Additions) -> dict[str, str]:
    return {
        name.strip(): value.strip()
        for name, _, value in (line.partition("=") for line in added_lines(additions))
    }


@pytest.mark.parametrize("on_wall_time", [None, *ON_WALL_TIME])
def test_every_line_sets_one_macro_and_none_queues(on_wall_time: str | None) -> None:
    for line in added_lines(replace(ADDITIONS, on_wall_time=on_wall_time)):
        assert re.match(r"(MY\.)?[A-Za-z_]+ = \S", line), line
        assert "\n" not in line


def test_arguments_environment_and_items_are_left_alone() -> None:
    untouched = {"arguments", "args", "environment", "env", "executable", "universe", "queue"}
    assert not untouched & {name.lower() for name in values(ADDITIONS)}


def test_a_macro_that_names_itself_has_no_default_within_its_default() -> None:
    """HTCondor ends such a reference at the second `)`, wherever it stands."""
    for name, value in values(replace(ADDITIONS, on_wall_time="fail")).items():
        for found in re.findall(rf"\$\({re.escape(name)}:(.*)", value, re.IGNORECASE):
            assert re.match(r"[^()]*\)|\$\([^()]*\)\)", found), (name, value)


def test_a_directory_with_a_dollar_is_no_macro() -> None:
    assert "/home/u/my $(DOLLAR)(files)/" in values(ADDITIONS)["htlease_base"]


def test_plan_and_ttl_are_told_only_if_they_were_given() -> None:
    assert not {"MY.HTLeasePlan", "MY.HTLeaseTTL"} & set(values(ADDITIONS))
    given = values(replace(ADDITIONS, plan_path=Path("/p/plan.toml"), ttl_seconds=60.0))
    assert given["MY.HTLeasePlan"] == '"plan.toml"'
    assert given["MY.HTLeasePlanPath"] == '"/p/plan.toml"'
    assert given["MY.HTLeaseTTL"] == "60"


def test_what_is_appended_balances_its_conditions() -> None:
    words = [line.split()[0] for line in appended(ADDITIONS).splitlines()]
    assert words.count("if") == words.count("endif") > 0
