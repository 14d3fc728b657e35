"""Requests that are wrong, doubtful or hostile as HTTP: refused in turn, and never half done."""

from __future__ import annotations

import itertools
import json
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.process.raw_line import Heard, request, say
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

_NUMBERS = itertools.count(1)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def subjob() -> str:
    """The path of a subjob that nobody has made."""
    return f"/v1/workflows/framing/subjobs/s-{next(_NUMBERS)}"


@pytest.fixture
def admin(server: ServerProcess) -> Iterator[Caller]:
    """The administrator; at the end the server has to be well."""
    yield Caller(server.url, server.admin_token)
    assert Caller(server.url, None).get("/readyz").status == 200
    assert "Traceback" not in server.log_text


def body() -> bytes:
    number = next(_NUMBERS)
    return json.dumps({"request_id": f"f-{number}", "nonce": f"nonce-{number:012d}"}).encode()


def chunked(data: bytes, size: int = 7) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def untouched(admin: Caller, subjob: str) -> bool:
    return admin.get(subjob).code == "unknown-subjob"


# ------------------------------------------------------------ one request, two readings


@pytest.mark.parametrize(
    "doubtful",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: 5\r\ncontent-length: 5\r\n",
        b"content-length: 5, 5\r\n",
        b"content-length: +5\r\n",
        b"content-length: -1\r\n",
        b"content-length: 0x5\r\n",
        b"content-length: 5 5\r\n",
        b"content-length: 99999999999999999999999999\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding: chunked\r\nx: a\x00b\r\n",
        b"x: a\r\n b: folded\r\n",
        b"x: a\nb: c\r\n",
        b": no name\r\n",
        b"no colon\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_no_request(
    server: ServerProcess, admin: Caller, subjob: str, doubtful: bytes
) -> None:
    sent = body()
    head = b"POST %s/acquire HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n" % (
        subjob.encode(),
        server.admin_token.encode(),
    )
    heard = say(server.url, head + doubtful + b"\r\n" + chunked(sent) + HEALTH)
    assert heard.statuses[0] in (400, 413) and heard.is_closed, heard
    assert len(heard.statuses) == 1, "what followed was taken for a request"
    assert untouched(admin, subjob)


def test_a_body_in_chunks_is_the_same_body(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    head = request("POST", f"{subjob}/acquire", token=server.admin_token)
    head = head.replace(b"content-length: 0", b"transfer-encoding: chunked")
    heard = say(server.url, head, *(bytes([byte]) for byte in chunked(body())), answers=1)
    assert heard.statuses == [200]
    assert admin.get(subjob).document["fence"] == 1


def test_a_header_behind_the_body_counts_for_nothing(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    head = request("POST", f"{subjob}/acquire")
    head = head.replace(b"content-length: 0", b"transfer-encoding: chunked")
    trailer = b"authorization: Bearer %s\r\n\r\n" % server.admin_token.encode()
    heard = say(server.url, head + chunked(body())[:-2] + trailer, answers=1)
    assert heard.statuses == [401]
    assert untouched(admin, subjob)


def test_two_tokens_in_one_request_are_none(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    good, bad = (f"authorization: Bearer {token}".encode() for token in (server.admin_token, "x"))
    for headers in ([good, bad], [bad, good], [good, good]):
        asked = request("POST", f"{subjob}/acquire", body(), *headers)
        assert say(server.url, asked, answers=1).statuses == [401]
    assert untouched(admin, subjob)


# ------------------------------------------------------------ several requests on one line


def test_requests_in_one_piece_are_answered_in_order(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    first = request("POST", f"{subjob}/acquire", body(), token=server.admin_token)
    unknown = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"
    heard = say(server.url, first + (HEALTH + unknown) * 1000, answers=2001)
    assert heard.statuses == [200, *[200, 404] * 1000]
    assert b'"fence":1' in heard.text[:400]


@pytest.mark.parametrize(
    ("following", "status"),
    [
        (b"\x00\x01 garbage\r\n\r\n", 400),
        (b"POST /v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 300_000 + b"\r\n\r\n", 413),
    ],
)
def test_a_good_request_gets_its_own_answer_whatever_follows(
    server: ServerProcess, admin: Caller, subjob: str, following: bytes, status: int
) -> None:
    first = request("POST", f"{subjob}/acquire", body(), token=server.admin_token)
    heard = say(server.url, first + following)
    assert heard.statuses == [200, status] and heard.is_closed


def test_nothing_is_kept_of_those_who_have_gone(own_server: ServerProcess) -> None:
    """Large bodies from nobody in particular, each on a line of its own."""
    large = request("POST", "/v1/workflows/w/subjobs/s/acquire", b" " * 250_000)
    assert say(own_server.url, large, answers=1).statuses == [401]
    before = own_server.resident_mib
    for _ in range(500):
        say(own_server.url, large, answers=1)
    assert own_server.resident_mib < before + 40


def test_half_a_request_is_none(server: ServerProcess, admin: Caller, subjob: str) -> None:
    whole = request("POST", f"{subjob}/acquire", body(), token=server.admin_token)
    for length in (1, 20, len(whole) // 2, len(whole) - 1):
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as line:
            line.sendall(whole[:length])
    assert untouched(admin, subjob)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /healthz HTTP/1.1\nhost: x\n\n", 400),
        (b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n", 400),
        (b"get /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /health\x00z HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET http://elsewhere/healthz HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"TRACE /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /%FF HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000 + b"\r\n", 413),
    ],
)
def test_what_the_server_does_not_speak_is_refused(
    server: ServerProcess, admin: Caller, asked: bytes, status: int
) -> None:
    assert say(server.url, asked, answers=1).statuses == [status]


# ------------------------------------------------------------ anything at all


def mutated(whole: bytes, seed: int) -> bytes:
    """Change, drop, repeat and move bytes of a request."""
    draw, data = random.Random(seed), bytearray(whole)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) or 1)
        until = at + draw.choice([1, 1, 2, 8, 40])
        change = draw.randrange(4)
        if change == 0:
            data[at:until] = bytes(draw.randrange(256) for _ in range(draw.choice([1, 2, 5])))
        elif change == 1:
            del data[at:until]
        elif change == 2:
            data[at:at] = data[at:until]
        else:
            data[at:at] = draw.choice(
                [b"\r\n", b"\n", b"\0", b":", b" ", b"\r\n\r\n", b"%00", b"chunked", b"0\r\n\r\n"]
            )
    return bytes(data)


@FUZZ
@given(seed=st.integers(0, 2**32))
def test_a_request_with_damaged_bytes_is_answered_once_or_hung_up_on(
    server: ServerProcess, admin: Caller, seed: int
) -> None:
    subjob = "/v1/workflows/framing/subjobs/damaged"
    whole = request("POST", f"{subjob}/renew", body(), token=server.admin_token)
    # The end of the line ends what would else be waited for.
    heard = _say_and_end(server, mutated(whole, seed))
    assert all(status < 500 for status in heard.statuses), (heard, mutated(whole, seed))
    assert untouched(admin, subjob)


def _say_and_end(server: ServerProcess, data: bytes) -> Heard:
    host, _, port = server.url.removeprefix("http://").partition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        try:
            while part := line.recv(65536):
                heard += part
        except ConnectionError:
            pass
    statuses = [int(found[9:12]) for found in heard.split(b"\r\n") if found[:9] == b"HTTP/1.1 "]
    return Heard(statuses, heard, True)
