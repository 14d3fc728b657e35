"""Doctor's verdicts: each fault has one, and every one but ok says what to do."""

from __future__ import annotations

import pytest

from htlease_cli.doctor.checks import (
    OK,
    PROBLEM,
    WARNING,
    Check,
    Reach,
    address_check,
    clock_check,
    knob_checks,
    token_check,
    wrapper_check,
)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (clock_check(0.4), OK),
        (clock_check(-4.9), OK),
        (clock_check(60.0), WARNING),
        (clock_check(-3600.0), WARNING),
        (address_check("http://127.0.0.1:8620", "127.0.0.1"), WARNING),
        (address_check("http://localhost:8620", "localhost"), WARNING),
        (address_check("http://[::1]:8620", "::1"), WARNING),
        (address_check("https://lease.example.org", "lease.example.org"), OK),
        (token_check("/s/admin.token", None, Reach.ALL), OK),
        (token_check(None, None, Reach.ALL), OK),
        (token_check("BEARER_TOKEN", None, Reach.ONE), WARNING),
        (token_check("BEARER_TOKEN", None, Reach.SOME), OK),
        (token_check("/s/admin.token", "the token has expired", Reach.ALL), PROBLEM),
        (token_check(None, "no token was sent", Reach.ALL), PROBLEM),
        (wrapper_check("/d/htlease-ep.pyz", "1.0", "1.0"), OK),
        (wrapper_check("/d/htlease-ep.pyz", "0.9", None), OK),
        (wrapper_check("/d/htlease-ep.pyz", "0.9", "1.0"), WARNING),
        (wrapper_check("/d/htlease-ep.pyz", None, "1.0"), PROBLEM),
    ],
)
def test_each_fact_has_its_verdict_and_each_fault_its_remedy(check: Check, verdict: str) -> None:
    assert check.verdict == verdict
    assert bool(check.remedy) == (verdict != OK)


def test_the_clock_says_which_way_it_is_off() -> None:
    assert clock_check(60.0).finding == "60 s ahead of the server's"
    assert clock_check(-7200.0).finding == "2.0 h behind the server's"


def knob(name: str, ttl_seconds: float = 120.0, **knobs: str) -> Check:
    return next(check for check in knob_checks(knobs, ttl_seconds) if check.name == name)


@pytest.mark.parametrize("which", ["PROTECTED_JOB_ATTRS", "IMMUTABLE_JOB_ATTRS"])
@pytest.mark.parametrize("value", ["NumJobStarts", "Owner, numjobstarts", "Owner NumJobStarts"])
def test_protecting_numjobstarts_is_a_problem(which: str, value: str) -> None:
    check = knob("protected attributes", **{which: value})  # type: ignore[arg-type]
    assert check.verdict == PROBLEM
    assert which in check.finding and "condor_reconfig" in check.remedy


def test_protecting_numshadowstarts_is_fine() -> None:
    assert knob("protected attributes", PROTECTED_JOB_ATTRS="NumShadowStarts").remedy == ""
    assert knob("protected attributes").verdict == OK


@pytest.mark.parametrize(
    ("value", "ttl_seconds", "verdict"),
    [("40", 120.0, WARNING), ("2400", 120.0, OK), ("0", 120.0, OK), ("$(X)", 120.0, OK)],
)
def test_a_lease_longer_than_the_jobs_is_warned_of(
    value: str, ttl_seconds: float, verdict: str
) -> None:
    check = knob("job lease", ttl_seconds, JOB_DEFAULT_LEASE_DURATION=value)
    assert check.verdict == verdict


def test_the_default_job_lease_is_known() -> None:
    assert knob("job lease", 3000.0).verdict == WARNING
    assert "2400 s" in knob("job lease").finding


def test_lazy_counters_are_for_information_only() -> None:
    assert knob("NumJobStarts").verdict == OK
    assert "lazily" in knob("NumJobStarts", SHADOW_LAZY_QUEUE_UPDATE="True").finding
    assert "every start" in knob("NumJobStarts", SHADOW_LAZY_QUEUE_UPDATE="False").finding
