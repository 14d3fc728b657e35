"""Tokens whose numbers are of any size or kind: nobody's, and no failure of the server's."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from htlease_server.auth.job_tokens import ISSUER, NOT_OURS, OwnTokens, numeric_date
from htlease_server.auth.signing_keys import FIRST, KeyRing

KEY = b"k" * 32
NOW = 1_800_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": ISSUER,
    "jti": "t",
    "iat": NOW - 10,
    "exp": NOW + 10,
    "workflow": "w",
}
NO_INSTANTS: list[Any] = [
    10**400,
    -(10**400),
    float("inf"),
    float("nan"),
    True,
    None,
    "1800000000",
    [],
    {},
]


def verified(**changes: object) -> object:
    text = jwt.encode({**CLAIMS, **changes}, KEY, algorithm="HS256")
    return OwnTokens(KeyRing({FIRST: KEY}), lambda: NOW).verify(text.encode())


def test_the_token_is_good_as_it_is() -> None:
    assert not isinstance(verified(), str)
    assert not isinstance(verified(exp=int(NOW) + 10, iat=NOW - 0.5), str)


@pytest.mark.parametrize("claim", ["exp", "iat", "end"])
@pytest.mark.parametrize("value", NO_INSTANTS, ids=lambda value: repr(value)[:20])
def test_an_instant_that_is_none_makes_no_token(claim: str, value: object) -> None:
    assert verified(**{claim: value}) == NOT_OURS


@pytest.mark.parametrize("value", NO_INSTANTS, ids=lambda value: repr(value)[:20])
def test_what_is_no_double_is_no_instant(value: object) -> None:
    with pytest.raises(ValueError, match="no "):
        numeric_date(value)
