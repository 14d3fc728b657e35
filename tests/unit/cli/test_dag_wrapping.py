"""Lines of a submit file as VARS: nothing names itself without a value, no name comes twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from htlease.rules.plan import ON_WALL_TIME
from htlease_cli.submit.node_wrapping import left_alone, variables_of, wrapping
from htlease_cli.submit.submit_lines import Additions
from htlease_dagman.dagfile.lexer import Place
from htlease_dagman.dagfile.parser import Node

ADDITIONS = Additions(
    pyz=Path("/opt/htlease-ep.pyz"),
    server_url="http://leases:8620",
    workflow="wf",
    token_path="/home/u/tokens/$(JOB)/htlease.token",
    submit_directory=None,
)
VERSIONS = [(23, 9, 6), (24, 6, 1), (25, 14, 1)]


def node(**variables: str) -> Node:
    return Node("A", "job", Place(Path("d"), 1), "a.sub", Path("/my $x"), variables=variables)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("on_wall_time", [None, *ON_WALL_TIME])
def test_what_names_itself_has_a_value_before(
    version: tuple[int, ...], on_wall_time: str | None
) -> None:
    wrapped = wrapping(replace(ADDITIONS, on_wall_time=on_wall_time), version)
    found = variables_of(node(), wrapped, None)
    before = {name.lower() for name in found.prepended}
    for name, value in {**wrapped.shared, **found.prepended, **found.appended}.items():
        if re.search(rf"\$\({re.escape(name)}[:)]", value, re.IGNORECASE):
            assert name in found.appended and name.lower() in before, (name, value)
    for value in found.prepended.values():
        assert not re.search(r"\$\((transfer_input_files|on_exit_hold)[:)]", value)


def test_dagman_sees_every_name_once() -> None:
    wrapped = wrapping(ADDITIONS, VERSIONS[0])
    found = variables_of(node(transfer_input_files="a"), wrapped, None)
    names = [*wrapped.shared, *found.prepended, *found.appended, "transfer_input_files"]
    assert len(set(names)) == len(names)


def test_what_vars_of_the_user_set_has_no_default_of_ours() -> None:
    found = variables_of(node(Transfer_Input_Files="a"), wrapping(ADDITIONS, VERSIONS[0]), None)
    assert "transfer_input_fileS" not in found.prepended
    assert found.appended["Transfer_input_files"].startswith("$(transfer_input_files)")


def test_shared_macros_do_nothing_to_a_job_by_themselves() -> None:
    for version in VERSIONS:
        assert all(name.startswith("htlease_") for name in wrapping(ADDITIONS, version).shared)


def test_the_directory_of_a_node_is_a_text_without_macros() -> None:
    found = variables_of(node(), wrapping(ADDITIONS, VERSIONS[0]), None)
    assert found.appended["htlease_directory"] == "/my $(DOLLAR)x"


def test_an_older_htcondor_knows_no_shell() -> None:
    assert wrapping(ADDITIONS, (23, 9, 6)).shared["htlease_shell"] == ""
    assert wrapping(ADDITIONS, (25, 14, 1)).shared["htlease_shell"] == "$(shell:)"


@pytest.mark.parametrize(
    ("text", "variables", "name"),
    [
        ('executable = x\n  +cmd = "y"\n', {}, "+cmd"),
        ("MY.TransferExecutable=false\n", {}, "+TransferExecutable"),
        ("", {"My.TransferInput": '"x"'}, "+TransferInput"),
    ],
)
def test_a_forced_attribute_is_named(text: str, variables: dict[str, str], name: str) -> None:
    assert (left_alone(text, node(**variables)) or "").startswith(name)


def test_other_attributes_are_the_users_business() -> None:
    assert left_alone('+Project = "x"\ncmd = y\n', node(**{"My.Other": "1"})) is None
