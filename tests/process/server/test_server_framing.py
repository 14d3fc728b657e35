"""Requests that are wrong, doubtful or hostile as HTTP: refused in turn, and never half done."""

from __future__ import annotations

import itertools
import json
import random
import re
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


def test_the_scheme_of_a_token_may_be_written_in_any_case(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    for token in (server.admin_token, server.token("framing")):
        for scheme in ("bearer", "BEARER", "Bearer "):
            asked = request("GET", subjob, b"", f"authorization: {scheme} {token}".encode())
            assert say(server.url, asked, answers=1).statuses == [404]


def test_the_wish_for_another_protocol_is_passed_over(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    """With its body, whose begin the parser takes for the other protocol."""
    sent = body()
    wish = (b"connection: keep-alive, Upgrade", b"upgrade: h2c")
    whole = request("POST", f"{subjob}/acquire", sent, *wish, token=server.admin_token)
    in_chunks = whole.replace(b"content-length: %d" % len(sent), b"transfer-encoding: chunked")
    in_chunks = in_chunks.replace(sent, chunked(sent))
    for asked in (whole, in_chunks):
        heard = say(server.url, asked + HEALTH, answers=2)
        assert heard.statuses == [200, 200] and not heard.is_closed, heard
    heard = say(server.url, request("GET", "/healthz", b"", *wish) + HEALTH, answers=2)
    assert heard.statuses == [200, 200]
    assert admin.get(subjob).document["fence"] == 1


def test_a_client_that_waits_for_leave_to_send_gets_it(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    sent = body()
    expects = (b"expect: 100-Continue",)
    whole = request("POST", f"{subjob}/acquire", sent, *expects, token=server.admin_token)
    heard = say(server.url, whole[: -len(sent)])
    assert heard.text == b"HTTP/1.1 100 Continue\r\n\r\n"
    heard = say(server.url, HEALTH + whole, answers=2)
    assert heard.statuses == [200, 200] and b"HTTP/1.1 100 Continue" in heard.text
    old = whole.replace(b"HTTP/1.1", b"HTTP/1.0")
    heard = say(server.url, old[: -len(sent)])
    assert heard.text == b""
    refused = whole.replace(b"content-length: %d" % len(sent), b"content-length: 9999999")
    heard = say(server.url, refused[: -len(sent)], answers=1)
    assert heard.statuses == [413] and b"100 Continue" not in heard.text


# ------------------------------------------------------------ several requests on one line


def test_requests_in_one_piece_are_answered_in_order(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    first = request("POST", f"{subjob}/acquire", body(), token=server.admin_token)
    unknown = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"
    heard = say(server.url, first + (HEALTH + unknown) * 1000, answers=2001)
    assert heard.statuses == [200, *[200, 404] * 1000]
    assert b'"fence":1' in heard.text[:400]


def test_requests_of_one_line_are_answered_whether_or_not_it_sends_on(
    server: ServerProcess, admin: Caller, subjob: str
) -> None:
    first = request("POST", f"{subjob}/acquire", body(), token=server.admin_token)
    for number in (0, 1, 50):
        heard = _say_and_end(server, first + HEALTH * number)
        assert heard.statuses == [200] * (number + 1)


def test_an_old_client_keeps_its_connection_only_if_it_says_so(server: ServerProcess) -> None:
    old = b"GET /healthz HTTP/1.0\r\n"
    heard = say(server.url, old + b"\r\n", old + b"\r\n")
    assert heard.statuses == [200] and heard.is_closed
    heard = say(server.url, (old + b"connection: keep-alive\r\n\r\n") * 2, answers=2)
    assert heard.statuses == [200, 200] and b"connection: keep-alive" in heard.text


@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\nx",
        b"0\r\nx: y",
        b"0\r\n" + b"x: y\r\n" * 5000,
        b"1;x",
        b"1;x=",
        b"1\r\ny\r\n" + b"2",
        b"1;" + b"x" * 9000 + b"\r\ny\r\n",
    ],
)
def test_what_stands_around_a_body_has_an_end(
    server: ServerProcess, admin: Caller, subjob: str, endless: bytes
) -> None:
    """A trailer, its name or value; what may stand behind the size of a chunk, again and again."""
    head = request("POST", f"{subjob}/acquire", token=server.admin_token)
    head = head.replace(b"content-length: 0", b"transfer-encoding: chunked")
    more = endless if endless.endswith(b"\n") else b"0" * 200_000
    heard = say(server.url, head + endless, *[more] * 20)
    assert heard.statuses in ([413], [400]) and heard.is_closed
    assert untouched(admin, subjob)


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
        (b"GET http://elsewhere/healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"GET HTTPS://elsewhere:1/v1/nothing?a HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET http://elsewhere HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x/y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x:y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: [::1]:8620\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nhost:\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/2.0\r\nhost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/0.9\r\nhost: x\r\n\r\n", 400),
        (b"\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"\r\n" * 100, 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nexpect: a-miracle\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
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
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
    return Heard(statuses, heard, True)
