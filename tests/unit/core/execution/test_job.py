"""Which key a job has, and where that is looked for."""

from __future__ import annotations

import base64
import json

import pytest

from htlease.condor.job_ad import Ad, parse_ad
from htlease.errors import BadConfig
from htlease.execution.credentials import Token
from htlease.execution.job import choose_key

_AD = 'GlobalJobId = "ap1#42.7#17"\nClusterId = 42\nProcId = 7\n'


def _ad(text: str = _AD) -> Ad:
    return Ad("/scratch/.job.ad", parse_ad(text))


def _token(**claims: object) -> Token:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return Token(f"h.{payload}.s", "/scratch/htlease.token")


def test_the_first_source_that_is_there_wins() -> None:
    named = _ad(_AD + 'HTLeaseKey = "ad/key"\n')
    scoped = _token(workflow="tok", subjob="one")
    assert str(choose_key("given/key", named, scoped)) == "given/key"
    assert str(choose_key(None, named, scoped)) == "ad/key"
    assert str(choose_key(None, _ad(), scoped)) == "tok/one"
    assert str(choose_key(None, _ad(), None)) == "ap1-42-17/7"


def test_a_key_that_the_access_point_stamped_gives_way_to_the_owners_token() -> None:
    stamped = _ad(_AD + 'QDate = 17\nHTLeaseKey = "ap1-42-17/7"\n')
    assert str(choose_key(None, stamped, _token(workflow="tok"))) == "tok/42.7"
    assert str(choose_key(None, stamped, _token(workflow="ap1-42-17"))) == "ap1-42-17/7"
    assert str(choose_key(None, stamped, None)) == "ap1-42-17/7"


def test_a_routed_copy_is_the_subjob_that_its_source_would_be() -> None:
    copy = 'GlobalJobId = "site#9.0#99"\nClusterId = 9\nProcId = 0\nQDate = 99\n'
    stamp = 'HTLeaseKey = "ap1-42-17/7"\n'
    marked = _ad(f'{copy}{stamp}HTLeaseStamp = "ap1-42-17/7"\n')
    assert str(choose_key(None, marked, _token(workflow="tok"))) == "tok/42.7"
    assert str(choose_key(None, marked, None)) == "ap1-42-17/7"
    own = _ad(f'{copy}HTLeaseKey = "own/key"\nHTLeaseStamp = "ap1-42-17/7"\n')
    assert str(choose_key(None, own, _token(workflow="tok"))) == "own/key"
    assert str(choose_key(None, _ad(copy + stamp), _token(workflow="tok"))) == "ap1-42-17/7"


def test_a_token_for_a_workflow_takes_the_job_id_as_subjob() -> None:
    assert str(choose_key(None, _ad(), _token(workflow="tok"))) == "tok/42.7"


@pytest.mark.parametrize("text", ["", "admin-secret", "a.b.c", "a.e30.c", "a.WzFd.c", "a.bnVsbA.c"])
def test_other_tokens_name_no_key(text: str) -> None:
    assert Token(text, "BEARER_TOKEN").scope() is None
    assert str(choose_key(None, _ad(), Token(text, "BEARER_TOKEN"))) == "ap1-42-17/7"


def test_nothing_to_name_a_key_is_said_with_what_to_do() -> None:
    with pytest.raises(BadConfig, match=r"there is no job ad .*--key WORKFLOW/SUBJOB"):
        choose_key(None, None, None)
    with pytest.raises(BadConfig, match=r"/scratch/.job.ad has no GlobalJobId"):
        choose_key(None, _ad("ClusterId = 3"), None)


def test_a_token_is_not_shown_when_it_is_printed() -> None:
    assert "secret" not in repr(Token("secret", "BEARER_TOKEN"))
