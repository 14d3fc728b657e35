"""Bodies and tokens of every shape: refused by the right code, and nothing is changed.

`HTLEASE_FUZZ_EXAMPLES` has more of them tried.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.process.wire_call import NONCE, Caller
from tests.serving import ServerProcess

from htlease.wire.protocol import PHASE_CALLS, SUBJOB_CALLS

WORKFLOW = "/v1/workflows/fuzzed"
SUBJOB = f"{WORKFLOW}/subjobs/s"
FUZZ = settings(
    max_examples=int(os.environ.get("HTLEASE_FUZZ_EXAMPLES", "200")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: More than the server may grow by, whatever it is sent.
GROWTH_MAX_MIB = 60
CALLS = [
    *(f"{SUBJOB}/{call}" for call in SUBJOB_CALLS),
    *(f"{SUBJOB}/phases/run/{call}" for call in PHASE_CALLS),
    *("/v1/tokens", "/v1/maintenance", "/v1/maintenance/announce", WORKFLOW),
]
#: Calls that a body can get right by chance.
NEEDS_NO_NONCE = {
    *(f"{SUBJOB}/{call}" for call in ("enroll", "acquire", "cancel", "ended", "observed")),
    *("/v1/tokens", "/v1/maintenance", "/v1/maintenance/announce", WORKFLOW),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of this module's own, with one subjob that is held."""
    own = ServerProcess(tmp_path_factory.mktemp("fuzzed"))
    own.start()
    admin = Caller(own.url, own.admin_token)
    called = admin.post(f"{SUBJOB}/acquire", nonce=NONCE, ttl_seconds=86400)
    assert called.status == 200
    assert admin.post(f"{SUBJOB}/phases/run/enter", fence=1, nonce=NONCE).status == 200
    yield own
    assert Caller(own.url, None).get("/readyz").status == 200
    assert "Traceback" not in own.log_text
    own.stop()


@pytest.fixture(autouse=True)
def nothing_changes(own: ServerProcess) -> Iterator[None]:
    """State, history and list are after each test what they were, and memory is bounded."""
    before, mib_before = everything(own), own.resident_mib
    yield
    assert everything(own) == before
    assert own.resident_mib < mib_before + GROWTH_MAX_MIB


def everything(own: ServerProcess) -> Any:
    admin = Caller(own.url, own.admin_token)
    shown = [
        admin.get(path).document
        for path in (
            *(SUBJOB, f"{SUBJOB}/history?limit=1000", f"{WORKFLOW}?limit=1000"),
            *("/v1/workflows?limit=1000", "/v1/maintenance"),
        )
    ]
    return without_durations(shown)


def without_durations(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: without_durations(part)
            for name, part in value.items()
            if name not in ("expires_in_seconds", "lapsed_counted_at")
        }
    return [without_durations(part) for part in value] if isinstance(value, list) else value


def put_or_post(path: str) -> str:
    return "PUT" if path in ("/v1/maintenance", WORKFLOW) else "POST"


# ------------------------------------------------------------ bodies

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(10**30), 2**63, 1e308, "\ud800", "\x00", "x" * 70_000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_FIELDS = st.sampled_from(
    [
        *("request_id", "nonce", "fence", "kind", "evidence", "place", "plan", "ttl_seconds"),
        *("details", "reason", "exit_code", "links", "artifacts", "global_job_id", "outcome"),
        *("workflow", "subjob", "role", "ends_in_seconds", "client_at", "labels", "force"),
    ]
)


@FUZZ
@given(path=st.sampled_from(CALLS), body=_JSON | st.dictionaries(_FIELDS, _JSON, max_size=6))
def test_a_body_of_any_json_is_refused_or_right(own: ServerProcess, path: str, body: Any) -> None:
    """Nobody guesses a nonce; where none is needed, a field too many makes it wrong."""
    if isinstance(body, dict) and path in NEEDS_NO_NONCE:
        body["unknown"] = 1
    sent = json.dumps(body).encode()
    called = Caller(own.url, own.admin_token).raw(put_or_post(path), path, sent)
    assert called.code in ("invalid", "too-large"), (called, sent)


@FUZZ
@given(path=st.sampled_from(CALLS), body=st.binary(max_size=400))
def test_bytes_that_are_no_json_are_refused(own: ServerProcess, path: str, body: bytes) -> None:
    called = Caller(own.url, own.admin_token).raw(put_or_post(path), path, b"{" + body)
    assert called.code == "invalid", (called, body)


#: As text, since no JSON library writes them.
HOSTILE = [
    b"[" * 200_000,
    b'{"a":' * 30_000,
    b'{"plan":' * 1000 + b"1" + b"}" * 1000,
    b'{"request_id":"r","fence":NaN,"nonce":"n"}',
    b'{"request_id":"r","fence":Infinity,"nonce":"n"}',
    b'{"request_id":"r","fence":1e999,"nonce":"n"}',
    b'{"request_id":"r","fence":' + b"9" * 5000 + b',"nonce":"n"}',
    b'{"request_id":"r","fence":1.0,"nonce":"n"}',
    b'{"request_id":"r","fence":01,"nonce":"n"}',
    b'{"request_id":"r","fence":"1","nonce":"n"}',
    b'{"request_id":"r","fence":true,"nonce":"n"}',
    b'{"request_id":"r","fence":1,"nonce":"\xff\xfe"}',
    b'{"request_id":"r","fence":1,"nonce":"\\ud800"}',
    b'{"request_id":"r","fence":1,"nonce":"n"} {}',
    b'\xef\xbb\xbf{"request_id":"r","fence":1,"nonce":"n"}',
    b'{"request_id":"r","fence":1,"nonce":"n","fence ":2}',
    b'{"request_id":"' + b"r" * 101 + b'","fence":1,"nonce":"n"}',
    b"",
    b"null",
    b"\x00",
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:40]))
def test_a_hostile_body_is_refused(own: ServerProcess, body: bytes) -> None:
    admin = Caller(own.url, own.admin_token)
    for path in CALLS:
        called = admin.raw(put_or_post(path), path, body)
        assert called.code in ("invalid", "too-large"), (path, called)


def test_of_a_field_that_comes_twice_the_last_one_counts(own: ServerProcess) -> None:
    """There is one reader, so nothing is checked by the one and done by the other."""
    body = b'{"request_id":"twice","fence":7,"fence":1,"nonce":"%s"}' % NONCE.encode()
    called = Caller(own.url, own.admin_token).raw("POST", f"{SUBJOB}/phases/other/enter", body)
    assert called.code == "phase-order"


# ------------------------------------------------------------ tokens


def segment(document: Any) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def forged(own: ServerProcess) -> dict[str, str]:
    """Return tokens that nobody made, by what is wrong with them."""
    good = own.token("elsewhere", subjob="s")
    head, claims_text, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims_text + "=="))
    wider = {**claims, "workflow": "fuzzed"}
    key = (own.folder / "signing.key").read_text().strip()
    signed: Callable[..., str] = jwt.encode
    no_exp = {name: value for name, value in wider.items() if name != "exp"}
    return {
        "of another subjob": f"{head}.{segment(wider)}.{signature}",
        "no signature": f"{head}.{segment(wider)}.",
        "algorithm none": f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment(wider)}.",
        "algorithm nOnE": f"{segment({'alg': 'nOnE'})}.{segment(wider)}.{signature}",
        "wrong key": signed(wider, "x" * 43, algorithm="HS256"),
        "admin token as key": signed(wider, own.admin_token, algorithm="HS256"),
        "empty key": signed_empty(wider),
        "another algorithm": signed(wider, key, algorithm="HS512"),
        "wrong audience": signed({**wider, "aud": "other"}, key, algorithm="HS256"),
        "no audience": signed({**wider, "aud": None}, key, algorithm="HS256"),
        "wrong issuer": signed({**wider, "iss": "other"}, key, algorithm="HS256"),
        "expired": signed({**wider, "exp": 1}, key, algorithm="HS256"),
        "never expires": signed(no_exp, key, algorithm="HS256"),
        "expires at text": signed({**wider, "exp": "soon"}, key, algorithm="HS256"),
        "of an admin": signed({**wider, "role": "admin", "workflows": ["*"]}, key, "HS256"),
        "of a role unknown": signed({**wider, "role": "root", "workflows": ["*"]}, key, "HS256"),
        "kid of a file": signed(wider, key, "HS256", {"kid": "../signing.key"}),
        "kid of a device": signed_empty(wider, kid="/dev/null"),
        "kid with SQL": signed(wider, "x", "HS256", {"kid": "' UNION SELECT 'x"}),
        "kid of a key that is gone": signed(wider, key, "HS256", {"kid": "20200101T000000Z-abcd"}),
        "kid no text": f"{segment({'alg': 'HS256', 'kid': [1]})}.{segment(wider)}.{signature}",
        "key in the token": signed(wider, "y" * 32, "HS256", {"jwk": {"kty": "oct", "k": "eXl5"}}),
        "key from elsewhere": signed(wider, "y" * 32, "HS256", {"jku": "http://127.0.0.1:9/"}),
        "cut": good[:-1],
        "without its claims": f"{head}..{signature}",
        "claims no object": signed_text(key, b"[1]"),
        "claims deep": signed_text(key, b"[" * 9000),
        "header deep": ".".join([segment(b"[" * 15_000), claims_text, signature]),
        "header deep object": ".".join([segment(b'{"a":' * 3000), claims_text, signature]),
        "numbers huge": ".".join([segment(b'{"alg":%s}' % (b"9" * 9000)), claims_text, signature]),
        "not base64": "é.é.é",
        "empty": "",
        "dots": "..",
        "many dots": "." * 3000,
    }


def signed_empty(claims: dict[str, Any], **more: str) -> str:
    """Return a token signed with an empty key, which no library would."""
    text = f"{segment({'alg': 'HS256', **more})}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(b'', text.encode(), 'sha256'))}"


def signed_text(key: str, text: bytes) -> str:
    """Return any text as claims, rightly signed."""
    return jwt.api_jws.encode(text, key, algorithm="HS256")


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_no_token_that_this_server_has_not_made_lets_anybody_in(own: ServerProcess) -> None:
    nobody = Caller(own.url, None)
    body = json.dumps({"request_id": "t", "fence": 1, "nonce": NONCE, "exit_code": 0}).encode()
    for what, token in forged(own).items():
        headers = {"authorization": f"Bearer {token}".encode().decode("latin-1")}
        for method, path in (
            ("POST", f"{SUBJOB}/exited"),
            ("GET", SUBJOB),
            ("GET", "/v1/workflows"),
        ):
            called = nobody.raw(method, path, body if method == "POST" else None, **headers)
            assert called.code == "unauthorized", (what, called)
            assert len(token) < 10 or token not in called.body.decode(), what


def test_a_token_of_another_subjob_is_forbidden_all_of_this_one(own: ServerProcess) -> None:
    for token in (
        own.token("elsewhere"),
        own.token("elsewhere", subjob="s"),
        own.token("fuzzed", subjob="other"),
    ):
        caller = Caller(own.url, token)
        for path in CALLS[: len(SUBJOB_CALLS) + len(PHASE_CALLS)]:
            body = json.dumps({"request_id": "t", "fence": 1, "nonce": NONCE}).encode()
            assert caller.raw("POST", path, body).code in ("forbidden", "invalid"), path
        assert caller.get(SUBJOB).code == caller.get(f"{SUBJOB}/history").code == "forbidden"


@FUZZ
@given(seed=st.integers(0, 2**32))
def test_a_token_with_any_change_is_none(own: ServerProcess, seed: int) -> None:
    draw = random.Random(seed)
    good = good_token(own)
    letters = list(good)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(letters))
        change = draw.choice(["replace", "drop", "double"])
        other = draw.choice("ABCxyz019-_.=~ ")
        letters[at : at + 1] = {"replace": [other], "drop": [], "double": [letters[at]] * 2}[change]
    changed = "".join(letters)
    # The last letter of a segment has bits that stand for nothing; they are not the token's.
    if decoded(changed) == decoded(good):
        return
    called = Caller(own.url, changed).get(SUBJOB)
    assert called.code == "unauthorized", changed


_GOOD: dict[str, str] = {}


def good_token(own: ServerProcess) -> str:
    if own.url not in _GOOD:
        _GOOD[own.url] = own.token("fuzzed", subjob="s")
        assert Caller(own.url, _GOOD[own.url]).get(SUBJOB).status == 200
    return _GOOD[own.url]


def decoded(token: str) -> list[bytes] | None:
    try:
        return [base64.urlsafe_b64decode(part + "==") for part in token.strip().split(".")]
    except ValueError:
        return None


@FUZZ
@given(
    value=st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"),
        max_size=300,
    )
)
def test_any_authorization_header_is_an_answer_not_a_failure(
    own: ServerProcess, value: str
) -> None:
    called = Caller(own.url, None).raw("GET", SUBJOB, authorization=value)
    assert called.code == "unauthorized", (value, called)
