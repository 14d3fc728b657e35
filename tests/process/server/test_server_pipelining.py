"""Many requests on one connection: what one client sends in a row keeps no other from its answer."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

from tests.process.raw_line import request, say
from tests.process.wire_call import NONCE, Caller
from tests.serving import ServerProcess

OPENAPI = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
UNKNOWN = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
HOLDERS = 20


def renewal(server: ServerProcess, holder: int, number: int) -> bytes:
    body = {"request_id": f"r-{number}", "fence": 1, "nonce": NONCE}
    path = f"/v1/workflows/w/subjobs/s-{holder}/renew"
    return request("POST", path, json.dumps(body).encode(), token=server.admin_token)


def test_a_renewal_before_thousands_that_are_refused_at_once_stops_no_other(
    own_server: ServerProcess,
) -> None:
    admin = Caller(own_server.url, own_server.admin_token)
    for holder in range(HOLDERS):
        assert admin.post(f"/v1/workflows/w/subjobs/s-{holder}/acquire", nonce=NONCE).status == 200
    heard: list[list[int]] = []

    def hold(holder: int) -> None:
        for number in range(20):
            behind = UNKNOWN * 3000 if holder == 0 and number % 5 == 0 else b""
            asked = renewal(own_server, holder, number) + behind
            told = say(own_server.url, asked, answers=1 + behind.count(b"GET"))
            heard.append(told.statuses)

    holders = [threading.Thread(target=hold, args=(holder,)) for holder in range(HOLDERS)]
    for thread in holders:
        thread.start()
    for thread in holders:
        thread.join()
    assert len(heard) == 20 * HOLDERS
    assert all(statuses[0] == 200 and set(statuses[1:]) <= {404} for statuses in heard)
    assert sum(len(statuses) for statuses in heard) == 20 * HOLDERS + 4 * 3000
    assert "Traceback" not in own_server.log_text


def test_no_answer_is_made_for_a_client_that_has_not_read_the_last(
    own_server: ServerProcess,
) -> None:
    host, _, port = own_server.url.removeprefix("http://").partition(":")
    before = own_server.resident_mib
    with contextlib.ExitStack() as lines:
        for _ in range(4):
            line = lines.enter_context(socket.create_connection((host, int(port)), timeout=3))
            with contextlib.suppress(TimeoutError):  # it stops to read what it cannot answer
                line.sendall(OPENAPI * 20_000)
        for _ in range(50):  # what goes on does so until it is stopped
            assert own_server.resident_mib < before + 40
            time.sleep(0.1)
        assert Caller(own_server.url, None).get("/healthz").status == 200
