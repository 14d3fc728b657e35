"""Which subjob a starting job gets a token for, from its ad in the queue."""

from __future__ import annotations

import pytest

from htlease.condor.schedd import Plain
from htlease_agent.job_tokens import brings_token
from htlease_agent.reconcile.job_end import is_stamp
from htlease_agent.reconcile.named_key import key_named

STAMPED = "ap1-42-1795225431/0"
AD: dict[str, Plain] = {"HTLeaseKey": STAMPED, "ClusterId": 42, "ProcId": 0, "QDate": 1795225431}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, STAMPED),
        ({"HTLeaseKey": "run7/s1"}, "run7/s1"),
        ({"Environment": "A=1 HTLEASE_KEY=run7/s2 B=2"}, "run7/s2"),
        ({"Environment": "'HTLEASE_KEY=run7/s2' B=2"}, "run7/s2"),
        ({"Environment": "MY_HTLEASE_KEY=run7/s2"}, STAMPED),
        ({"Env": "A=1;HTLEASE_KEY=run7/s3;B=2"}, "run7/s3"),
    ],
)
def test_a_key_that_comes_with_the_job_wins_over_the_stamp(
    changes: dict[str, Plain], key: str
) -> None:
    ad = {**AD, **changes}
    assert key_named(ad) == key
    assert is_stamp(key, ad) == (key == STAMPED)


@pytest.mark.parametrize(
    ("files", "is_there"),
    [
        ("plan.toml, htlease.token", True),
        ("/home/ann/htlease.token,data", True),
        ("x-htlease.token", False),
        ("brought/", False),
        ("", False),
    ],
)
def test_a_token_among_the_input_is_seen(files: str, is_there: bool) -> None:
    assert brings_token({**AD, "TransferInput": files}) == is_there
