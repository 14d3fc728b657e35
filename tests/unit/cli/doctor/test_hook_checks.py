"""What is said of a machine's hooks: each fault has its verdict and a remedy."""

from __future__ import annotations

import re

import pytest

from htlease_cli.doctor.agent_state import AgentState
from htlease_cli.doctor.checks import OK, PROBLEM, WARNING, Check
from htlease_cli.doctor.hook_checks import KNOBS, hook_checks
from htlease_cli.doctor.hook_macros import CHECKED
from htlease_cli.install.roles import FILES, read_role

EP = {
    "HTLEASE_HOOK_PREPARE_JOB": "/h/prepare_job",
    "HTLEASE_HOOK_UPDATE_JOB_INFO": "/h/update_job_info",
    "STARTER_DEFAULT_JOB_HOOK_KEYWORD": "HTLEASE",
    "STARTER_UPDATE_INTERVAL": "60",
    "STARTER_INITIAL_UPDATE_INTERVAL": "8",
    "ENABLE_CHIRP": "true",
    "ENABLE_CHIRP_IO": "true",
    "CHIRP_DELAYED_UPDATE_PREFIX": "Chirp*",
}
AP = {
    "JOB_TRANSFORM_NAMES": "Other, HTLease HTLeaseHooks",
    "DAEMON_LIST": "MASTER, SCHEDD HTLEASE_AGENT",
    "HTLEASE_AGENT": "/usr/bin/htlease",
}
OLD, NEW = (23, 9, 6), (25, 14, 1)


def check(name: str, values: dict[str, str], version: tuple[int, ...] = NEW) -> Check:
    found = [check for check in hook_checks(values, version, {}) if check.name == name]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("values", [{}, EP, AP, {**EP, **AP}])
def test_a_machine_as_installed_has_no_fault(values: dict[str, str]) -> None:
    assert {check.verdict for check in hook_checks(values, NEW, {})} <= {OK}


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert hook_checks({"DAEMON_LIST": "MASTER"}, NEW, {}) == []
    names = {check.name for check in hook_checks(AP, NEW, {})}
    assert names == {"stamps", "agent"}


@pytest.mark.parametrize(
    ("name", "values", "verdict"),
    [
        ("starter hooks", {**EP, "STARTER_JOB_HOOK_KEYWORD": "SITE"}, PROBLEM),
        ("starter hooks", {**EP, "STARTER_DEFAULT_JOB_HOOK_KEYWORD": "SITE"}, PROBLEM),
        ("starter hooks", {**EP, "STARTER_JOB_HOOK_KEYWORD": "HTLEASE"}, OK),
        ("renewal", {**EP, "HTLEASE_TTL": "60"}, PROBLEM),
        ("renewal", {**EP, "HTLEASE_TTL": "100"}, WARNING),
        ("renewal", {**EP, "HTLEASE_TTL": "180"}, OK),
        ("renewal", {**EP, "HTLEASE_TTL": "5m"}, PROBLEM),
        ("renewal", {**EP, "STARTER_UPDATE_INTERVAL": "30 * 2"}, WARNING),
        ("renewal", {**EP, "STARTER_UPDATE_INTERVAL": "300"}, PROBLEM),
        ("renewal", {**EP, "STARTER_INITIAL_UPDATE_INTERVAL": "600"}, PROBLEM),
        ("chirp", {**EP, "ENABLE_CHIRP": "False"}, WARNING),
        ("chirp", {**EP, "ENABLE_CHIRP_IO": "0"}, WARNING),
        ("chirp", {**EP, "ENABLE_CHIRP_UPDATES": "false"}, WARNING),
        ("chirp", {**EP, "ENABLE_CHIRP_DELAYED": "false"}, WARNING),
        ("chirp", {**EP, "CHIRP_DELAYED_UPDATE_PREFIX": "Other*, Foo*"}, WARNING),
        ("chirp", {**EP, "CHIRP_DELAYED_UPDATE_PREFIX": "Other*, chirp*"}, OK),
        ("job wrapper", {**EP, "HTLEASE_WRAP_JOBS": "True"}, WARNING),
        ("job wrapper", {**EP, "HTLEASE_WRAP_JOBS": "1", "USER_JOB_WRAPPER": "/x"}, WARNING),
        ("router keyword", {**EP, "JOB_ROUTER_HOOK_KEYWORD": "HTLEASE"}, PROBLEM),
        (
            "router keyword",
            {"STARTER_JOB_HOOK_KEYWORD": "SITE", "JOB_ROUTER_HOOK_KEYWORD": "SITE"},
            PROBLEM,
        ),
        ("router hooks", {**EP, "JOB_ROUTER_HOOK_KEYWORD": "HTLEASE_ROUTER"}, OK),
        ("stamped keyword", {**AP, "DAEMON_LIST": "MASTER SCHEDD JOB_ROUTER"}, PROBLEM),
        ("agent", {"JOB_TRANSFORM_NAMES": "HTLease"}, WARNING),
    ],
)
def test_each_fault_has_its_verdict_and_a_remedy(
    name: str, values: dict[str, str], verdict: str
) -> None:
    found = check(name, values)
    assert found.verdict == verdict, found
    assert bool(found.remedy) == (verdict != OK)


@pytest.mark.parametrize(
    ("state", "verdict", "words", "remedy"),
    [
        (None, OK, "is to run", ""),
        (AgentState("/lock/htlease.agent", True, "/log/L"), OK, "answers at /lock", ""),
        (
            AgentState(
                "/lock/htlease.agent", False, "/log/L", "run `pip install 'htlease[agent]'`"
            ),
            PROBLEM,
            "htlease[agent]",
            "install what it names",
        ),
        (AgentState("/lock/htlease.agent", False, "/log/L"), PROBLEM, "nothing stays", "/log/L"),
    ],
)
def test_the_agent_is_judged_by_what_answers(
    state: AgentState | None, verdict: str, words: str, remedy: str
) -> None:
    (found,) = (c for c in hook_checks(AP, NEW, {}, state) if c.name == "agent")
    assert found.verdict == verdict
    assert words in found.finding and remedy in found.remedy


@pytest.mark.parametrize(
    ("version", "verdict"), [(OLD, OK), ((25, 3, 9), OK), ((25, 4, 0), PROBLEM), (NEW, PROBLEM)]
)
def test_an_exit_hook_is_a_problem_from_25_4_on(version: tuple[int, ...], verdict: str) -> None:
    with_hook = {**EP, "HTLEASE_HOOK_JOB_EXIT": "/h/job_exit"}
    assert check("JOB_EXIT hook", with_hook, version).verdict == verdict
    assert check("JOB_EXIT hook", EP, version).verdict == OK


def test_a_hook_that_htcondor_refuses_is_named_with_what_follows() -> None:
    values = {**EP, "HTLEASE_HOOK_SHADOW_PREPARE_JOB": "/h/shadow_prepare_job"}
    faults = {
        "HTLEASE_HOOK_PREPARE_JOB": "No such file or directory",
        "HTLEASE_HOOK_SHADOW_PREPARE_JOB": "it is not executable",
    }
    starter, shadow = (c for c in hook_checks(values, NEW, faults) if c.name == "hook path")
    assert (starter.verdict, shadow.verdict) == (PROBLEM, PROBLEM)
    assert starter.finding.startswith("No such file or directory: HTLEASE_HOOK_PREPARE_JOB = /h/")
    assert "every job" in starter.finding
    assert "no token" in shadow.finding and "every job" not in shadow.finding


def test_one_fault_of_many_hooks_is_said_once() -> None:
    fault = "everybody may write to /h"
    faults = {"HTLEASE_HOOK_PREPARE_JOB": fault, "HTLEASE_HOOK_UPDATE_JOB_INFO": fault}
    (found,) = (c for c in hook_checks(EP, NEW, faults) if c.name == "hook path")
    assert "/h/prepare_job" in found.finding and "/h/update_job_info" in found.finding


def test_every_macro_that_is_judged_is_asked_for() -> None:
    asked = set(KNOBS)
    assert set(EP) | set(AP) <= asked


@pytest.mark.parametrize("role", sorted(FILES))
def test_every_macro_of_a_file_has_values_that_it_takes(role: str) -> None:
    part = read_role(role)
    assert part.macros <= set(CHECKED)
    read = set(re.findall(r"\$\((HTLEASE_[A-Z_]+)", part.text)) - {"HTLEASE_AGENT_ARGS"}
    assert read <= part.macros
