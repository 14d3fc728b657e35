"""The server behind nginx and HAProxy: what they pass on arrives, and what they answer is its."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator

import pytest
from tests.process.raw_line import request, say
from tests.process.wire_call import NONCE, Caller
from tests.reverse_proxies import in_front_of
from tests.serving import ServerProcess

_NUMBERS = itertools.count(1)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
UNKNOWN = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxied(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The URL of a proxy in front of the server."""
    folder = tmp_path_factory.mktemp(request.param)
    with in_front_of(server.web_url.removeprefix("http://"), request.param, folder) as proxy:
        yield f"http://{proxy}"
    assert "Traceback" not in server.log_text


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def acquire(server: ServerProcess, *, size: int = 0) -> bytes:
    number = next(_NUMBERS)
    fields = {"request_id": f"p-{number}", "nonce": NONCE}
    body = json.dumps(fields).encode() + b" " * size
    path = f"/v1/workflows/proxied/subjobs/s-{number}/acquire"
    return request("POST", path, body, token=server.admin_token)


def test_requests_in_one_piece_are_answered_in_order(server: ServerProcess, proxied: str) -> None:
    for _ in range(5):
        asked = acquire(server) + (HEALTH + UNKNOWN) * 50
        heard = say(proxied, asked, answers=101)
        assert heard.statuses == [200, *[200, 404] * 50]


def test_a_connection_is_kept_until_its_client_wants_it_closed(
    server: ServerProcess, proxied: str
) -> None:
    heard = say(proxied, HEALTH, HEALTH, acquire(server), answers=3)
    assert heard.statuses == [200, 200, 200] and not heard.is_closed
    last = HEALTH.replace(b"host", b"connection: close\r\nhost")
    heard = say(proxied, HEALTH + last)
    assert heard.statuses == [200, 200] and heard.is_closed


def test_bodies_come_through_whole_or_are_refused(server: ServerProcess, proxied: str) -> None:
    for size in (0, 20_000, 250_000):
        assert say(proxied, acquire(server, size=size), answers=1).statuses == [200]
    assert say(proxied, acquire(server, size=280_000)).statuses == [413]
    whole = acquire(server)
    head, _, body = whole.partition(b"\r\n\r\n")
    head = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
    parts = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    asked = head + b"\r\n\r\n" + parts + b"0\r\nx: a trailer\r\n\r\n" + HEALTH
    assert say(proxied, asked, answers=2).statuses == [200, 200]


def test_a_client_that_breaks_off_leaves_the_next_one_its_own_answers(
    server: ServerProcess, proxied: str
) -> None:
    """Proxies use one connection to the server for several clients."""
    for _ in range(20):
        for broken in (
            acquire(server)[:-5],
            acquire(server) + b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz",
        ):
            with socket.create_connection(address(proxied)) as line:
                line.sendall(broken)
        caller = Caller(proxied, server.admin_token)
        assert caller.get("/healthz").document == {"status": "ok"}


def test_clients_of_ours_need_no_other_setting(server: ServerProcess, proxied: str) -> None:
    caller = Caller(proxied, server.token("proxied"))
    path = f"/v1/workflows/proxied/subjobs/own-{next(_NUMBERS)}"
    assert caller.post(f"{path}/acquire", nonce=NONCE).document["fence"] == 1
    assert caller.post(f"{path}/renew", fence=1, nonce=NONCE).status == 200
    assert caller.post(f"{path}/renew", fence=2, nonce=NONCE).code == "stale-fence"
