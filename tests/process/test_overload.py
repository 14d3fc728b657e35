"""A server that has more to do than it can: it says so, and no lease is lost for it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tests.process import crowd
from tests.process.execution import Sandbox
from tests.process.faulty_proxy import FaultyProxy
from tests.process.raw_line import request, say
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

from htlease.rules.quotas import SUBMISSIONS_MAX

HOLDERS = 10_000
ENDLESSLY_DEEP = b'{"request_id":"s","structure":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
PROCESSES = 4
NONCE = "nonce-of-a-test-0123456789"


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that takes two requests a second of each token."""
    server = ServerProcess(tmp_path / "server", options=("--rate-limit", "2"))
    server.start()
    yield server
    server.stop()


def acquire(caller: Caller, subjob: str) -> int:
    return caller.post(f"{subjob}/acquire", nonce=NONCE, evidence={"job_starts": 1}).status


def test_ten_thousand_holders_renew_at_once_in_a_flood(own_server: ServerProcess) -> None:
    port, token = int(own_server.url.rpartition(":")[2]), own_server.admin_token
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_files > HOLDERS + 200, "the limit of open files is too low for this test"
    holders = [range(HOLDERS)[part::PROCESSES] for part in range(PROCESSES)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES + 1, mp_context=spawn, initializer=_many_files) as pool:
        grants = [pool.submit(crowd.acquire, port, token, part, 3600.0) for part in holders]
        assert [grant.result() for grant in grants] == [{}] * PROCESSES
        flood = pool.submit(crowd.flood, port, token, 6.0)
        for _ in range(2):
            renewals = [pool.submit(crowd.renew_at_once, port, token, part) for part in holders]
            told = [renewal.result() for renewal in renewals]
            assert told == [(len(part), {}) for part in holders]
        answered, refused = flood.result()
    assert answered > 100 and set(refused) <= {b"503"}
    for holder in (0, 4999, HOLDERS - 1):
        subjob = own_server.subjob(f"crowd-{holder % 50}/s-{holder:05d}")
        assert (subjob["status"], subjob["fence"]) == ("active", 1)


def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def test_clients_that_dribble_keep_nobody_from_being_served(own_server: ServerProcess) -> None:
    address = ("127.0.0.1", int(own_server.url.rpartition(":")[2]))
    head = b"POST /v1/workflows/w/subjobs/s/renew HTTP/1.1\r\nhost: x\r\n"
    starts = (b"", b"P", head, head + b"content-length: 1000\r\n\r\n{")
    with contextlib.ExitStack() as lines:
        for number in range(600):
            line = lines.enter_context(socket.create_connection(address, timeout=20))
            line.sendall(starts[number % len(starts)])
        admin = Caller(own_server.url, own_server.admin_token)
        for number in range(20):
            assert acquire(admin, f"/v1/workflows/w/subjobs/s-{number}") == 200
        assert admin.get("/readyz").status == 200


def test_a_huge_body_is_refused_before_it_has_come(server: ServerProcess) -> None:
    head = (
        b"POST /v1/workflows/w/subjobs/s/acquire HTTP/1.1\r\nhost: x\r\n"
        b"content-length: 100000000000\r\n\r\n"
    )
    heard = say(server.url, head + b"x" * 1000)
    assert heard.statuses == [413] and heard.is_closed


def test_what_a_thousand_clients_have_the_server_hold_has_a_bound(
    own_server: ServerProcess,
) -> None:
    """A quarter of a GiB of bodies that do not end, and as much of answers that nobody reads."""
    address = ("127.0.0.1", int(own_server.url.rpartition(":")[2]))
    body = b"POST /v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-length: 262144\r\n\r\n" + b"x" * 262_000
    asking = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 100
    before = own_server.resident_mib
    with contextlib.ExitStack() as lines:
        for number in range(1000):
            line = lines.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            line.connect(address)
            line.settimeout(5)
            with contextlib.suppress(OSError):  # refused, or cut off for others
                line.sendall(asking if number % 2 else body)
            assert own_server.resident_mib < before + 110
        admin = Caller(own_server.url, own_server.admin_token)
        assert acquire(admin, "/v1/workflows/w/subjobs/s") == 200
        assert (
            acquire(Caller(own_server.url, own_server.token("v")), "/v1/workflows/v/subjobs/s")
            == 200
        )
    assert "Traceback" not in own_server.log_text


def test_a_token_over_its_rate_is_told_when_to_come_and_keeps_its_lease(
    limited: ServerProcess,
) -> None:
    ours = Caller(limited.url, limited.token("ours"))
    subjob = "/v1/workflows/ours/subjobs/s"
    assert acquire(ours, subjob) == 200
    answers = [ours.get(subjob) for _ in range(60)]
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.code for answer in refused} == {"overloaded"}
    for _ in range(60):
        assert ours.post(f"{subjob}/renew", fence=1, nonce=NONCE).status == 200
    other = Caller(limited.url, limited.token("other"))
    assert acquire(other, "/v1/workflows/other/subjobs/s") == 200


def test_a_renewal_with_details_is_written_and_so_counts(limited: ServerProcess) -> None:
    ours = Caller(limited.url, limited.token("ours"))
    subjob = "/v1/workflows/ours/subjobs/s"
    assert acquire(ours, subjob) == 200
    saved = [ours.post(f"{subjob}/renew", fence=1, nonce=NONCE, details="x") for _ in range(40)]
    assert {answer.status for answer in saved} == {200, 503}
    assert ours.post(f"{subjob}/renew", fence=1, nonce=NONCE).status == 200


def test_the_administrator_has_no_rate(limited: ServerProcess) -> None:
    admin = Caller(limited.url, limited.admin_token)
    assert {admin.get("/v1/workflows").status for _ in range(40)} == {200}


def test_a_subjob_is_enrolled_so_often_and_no_more(own_server: ServerProcess) -> None:
    """Each time its state is written anew; 5,000 enrolments were 193 MB."""
    path, before = "/v1/workflows/w/subjobs/s", own_server.resident_mib
    bodies = [
        {"request_id": f"e-{number}", "global_job_id": f"ap#{number}.0#1"}
        for number in range(SUBMISSIONS_MAX + 20)
    ]
    asked = b"".join(
        request("POST", f"{path}/enroll", json.dumps(body).encode(), token=own_server.admin_token)
        for body in bodies
    )
    heard = say(own_server.url, asked, answers=len(bodies))
    assert heard.statuses == [200] * SUBMISSIONS_MAX + [409] * 20
    assert heard.text.count(b'"code":"quota-exceeded"') == 20
    assert own_server.resident_mib < before + 30
    admin = Caller(own_server.url, own_server.admin_token)
    assert admin.post(f"{path}/enroll", global_job_id="ap#7.0#1").status == 200
    called = admin.post(f"{path}/acquire", nonce=NONCE, global_job_id="ap#7.0#1")
    assert called.code in (None, "superseded-attempt")


def test_labels_and_structures_of_workflows_are_bounded(own_server: ServerProcess) -> None:
    admin = Caller(own_server.url, own_server.admin_token)

    def put(name: str, **body: object) -> str | None:
        sent = json.dumps({"request_id": name, **body}).encode()
        return admin.raw("PUT", f"/v1/workflows/{name}", sent).code

    assert put("w", labels={f"l{number}": "x" for number in range(100)}) is None
    assert put("v", labels={f"l{number}": "x" for number in range(101)}) == "invalid"
    deep: list[object] = [[]]
    for _ in range(98):
        deep = [deep]
    assert put("u", structure=deep) is None
    assert put("t", structure=[deep]) == "invalid"
    assert admin.raw("PUT", "/v1/workflows/s", ENDLESSLY_DEEP).code == "invalid"
    before = own_server.resident_mib
    for number in range(400):
        assert put(f"w-{number}", structure="x" * 250_000) is None
    assert own_server.resident_mib < before + 80


class Storm(FaultyProxy):
    """Answers as an overloaded server does, from the first phase on and for some seconds."""

    SECONDS = 6.0

    def __init__(self, target_url: str) -> None:
        super().__init__(target_url, seed=0)
        self.ends_at: float | None = None
        self.refused: set[str] = set()

    def pass_on(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes] | None:
        call = path.rpartition("/")[2]
        if self.ends_at is None and call == "enter":
            self.ends_at = time.monotonic() + self.SECONDS
        if self.ends_at is not None and time.monotonic() < self.ends_at:
            self.refused.add(call)
            problem = {"code": "overloaded", "detail": "busy", "retry_after_seconds": 1}
            return 503, json.dumps({**problem, "status": 503}).encode()
        return self._forward(path, body, headers)


def test_a_storm_of_refusals_costs_neither_lease_nor_payload(
    own_server: ServerProcess, new_sandbox: Callable[..., Sandbox]
) -> None:
    storm, sandbox = Storm(own_server.url), new_sandbox(own_server)
    sandbox.environ["HTLEASE_URL"] = storm.url
    assert sandbox.run("--ttl", "12", "--", "sh", "-c", "sleep 4; exit 7") == 7
    storm.close()
    subjob = own_server.subjob(sandbox.key)
    assert (subjob["fence"], subjob["status"], subjob["exit_code"]) == (1, "exited", 7)
    assert storm.refused >= {"enter", "renew"}
    assert "lease" not in "".join(event["event"] for event in own_server.history(sandbox.key)[2:])
