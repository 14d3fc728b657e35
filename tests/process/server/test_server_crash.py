"""What the server promises when it is killed, when its disk is full, and when all come at once."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from tests.process.wire_call import NONCE, Called, Caller
from tests.serving import ServerProcess

KILLS = 50
WRITERS = 8
CONTENDERS = 50
ROUNDS = 200


class Writer(threading.Thread):
    """Runs one job after the other against a server that comes and goes.

    Every call is repeated with its request ID until it is answered, as clients do. What was
    answered is kept, to be looked for afterwards.
    """

    def __init__(self, server: ServerProcess, number: int, is_over: threading.Event) -> None:
        super().__init__(name=f"writer-{number}")
        self._server = server
        self._number = number
        self._is_over = is_over
        self._token = server.admin_token
        self._calls = 0
        #: Subjob -> (call, phase) that were answered with 200, in order, with their fences.
        self.answered: dict[str, list[tuple[str, int]]] = {}
        self.problems: list[str] = []

    def run(self) -> None:
        job = 0
        while not self._is_over.is_set():
            try:
                self._job(f"s-{self._number}-{job}", f"nonce-{self._number}-{job}-{'x' * 16}")
            except Exception as problem:
                self.problems.append(f"{self.name}: {problem!r}")
                return
            job += 1

    def _job(self, subjob: str, nonce: str) -> None:
        self.answered[subjob] = []
        for fence in (1, 2):
            secret = f"{nonce}-{fence}"
            pair = {"fence": fence, "nonce": secret}
            steps: list[tuple[str, dict[str, Any]]] = [
                ("acquire", {"nonce": secret, "evidence": {"job_starts": fence}}),
                ("phases/run/enter", pair),
                ("renew", {**pair, "details": f"{subjob} under {fence}"}),
                ("renew", pair),
            ]
            steps += [("abandon", pair)] if fence == 1 else [("phases/run/complete", pair)]
            for call, body in steps:
                document = self._until_answered(
                    f"/v1/workflows/crash/subjobs/{subjob}/{call}", body
                )
                if document is None:
                    return
                if call == "acquire" and document["fence"] != fence:
                    raise AssertionError(f"{subjob}: fence {document['fence']}, not {fence}")
                self.answered[subjob].append((call, fence))

    def _until_answered(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        self._calls += 1
        body = {**body, "request_id": f"{self.name}-{self._calls}"}
        while not self._is_over.is_set():
            try:
                called = Caller(self._server.url, self._token).raw(
                    "POST", path, json.dumps(body).encode()
                )
            except (OSError, http.client.HTTPException):
                time.sleep(0.005)  # the server is away
                continue
            if called.status == 200:
                document: dict[str, Any] = called.document
                return document
            raise AssertionError(f"{path}: {called}")
        return None


def test_no_acknowledged_write_is_lost_and_nobody_is_fenced_over_50_kills(
    own_server: ServerProcess,
) -> None:
    draw = random.Random(50)
    admin = Caller(own_server.url, own_server.admin_token)
    holder = {"nonce": NONCE, "fence": 1}
    acquired = admin.post("/v1/workflows/crash/subjobs/holder/acquire", nonce=NONCE, ttl_seconds=2)
    assert acquired.status == 200
    stop = threading.Event()
    writers = [Writer(own_server, number, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(KILLS):
            time.sleep(draw.uniform(0.05, 0.45))
            own_server.stop(signal.SIGKILL)
            time.sleep(draw.choice([0.0, 0.0, 0.0, 0.5]))
            own_server.start()
            # Its renewals are not durable one by one, and its ttl is shorter than the test.
            renewal = admin.post("/v1/workflows/crash/subjobs/holder/renew", **holder)
            assert renewal.status == 200 and renewal.document["order"] == "continue", renewal
            rival = admin.post(
                "/v1/workflows/crash/subjobs/holder/acquire", nonce="nonce-of-a-rival-01234"
            )
            assert rival.code == "lease-still-live"
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [problem for writer in writers for problem in writer.problems] == []
    count = 0
    for writer in writers:
        for subjob, answered in writer.answered.items():
            count += len(answered)
            _check_history(admin, subjob, answered)
    assert count > KILLS * 10, "the load was too small to show anything"


#: Answered call -> the event that has to be in the history under the same fence.
_EVENT = {
    "acquire": "lease-acquired",
    "phases/run/enter": "phase-entered",
    "phases/run/complete": "phase-completed",
    "abandon": "lease-abandoned",
}


def _check_history(admin: Caller, subjob: str, answered: list[tuple[str, int]]) -> None:
    path = f"/v1/workflows/crash/subjobs/{subjob}"
    if not answered:
        return
    events = admin.get(f"{path}/history").document["events"]
    recorded = [(event["event"], event.get("fence")) for event in events]
    for call, fence in answered:
        if call in _EVENT:
            assert recorded.count((_EVENT[call], fence)) == 1, (subjob, call, recorded)
    fences = [fence for event, fence in recorded if fence is not None]
    assert fences == sorted(fences), (subjob, recorded)
    saved = [fence for call, fence in answered if call == "renew"]
    if saved:
        details = admin.get(path).document["details"]
        assert details in (f"{subjob} under {saved[-1]}", f"{subjob} under {saved[-1] + 1}")


# ------------------------------------------------------------ disk full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True
    )
    assert done.returncode == 0, (
        f"this test needs a small file system of its own and may not mount one: {done.stderr};"
        " run it as root"
    )
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_refuses_breaks_nothing_and_is_recovered_from(small_disk: Path) -> None:
    server = ServerProcess(small_disk / "state")
    server.start()
    try:
        admin = Caller(server.url, server.admin_token)
        path = "/v1/workflows/full/subjobs"
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"\0" * 1024 * 1024)
        kept, refusal = [], None
        for number in range(2000):
            called = admin.post(
                f"{path}/s-{number}/acquire", nonce=NONCE, host="h" * 300, ttl_seconds=600
            )
            if called.status == 200:
                kept.append(number)
                continue
            refusal = called
            break
        assert refusal is not None and refusal.code == "overloaded", "the disk did not fill up"
        assert "full" in refusal.document["detail"] and refusal.headers["retry-after"]
        assert admin.get("/readyz").code == "overloaded"
        assert admin.get("/healthz").status == 200
        # Reading goes on, and so does holding a lease.
        assert admin.get(f"{path}/s-{kept[-1]}").document["status"] == "active"
        pair = {"fence": 1, "nonce": NONCE}
        assert admin.post(f"{path}/s-{kept[-1]}/renew", **pair).status == 200
        # A short write may still fit into what the log has; this one does not.
        large = admin.post(f"{path}/s-0/renew", **pair, details="x" * 60_000)
        assert large.code == "overloaded"
        assert admin.get(f"{path}/s-0").document["details"] is None

        ballast.unlink()
        until = time.monotonic() + 30
        while (called := admin.post(f"{path}/s-0/exited", **pair, exit_code=0)).status != 200:
            assert called.code == "overloaded" and time.monotonic() < until
            time.sleep(0.1)
        assert admin.get("/readyz").status == 200
        server.stop()
        server.start()
        for number in kept:
            shown = admin_get(server, f"{path}/s-{number}")
            assert shown.document["status"] == ("exited" if number == 0 else "active")
    finally:
        server.stop()


def test_a_start_on_a_full_disk_fails_so_that_it_is_tried_again(small_disk: Path) -> None:
    """Service managers do not try again after 78."""
    state = small_disk / "state"
    server = ServerProcess(state)
    server.start()
    server.stop()
    before = sorted(state.iterdir())
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    done = subprocess.run(
        [sys.executable, "-m", "htlease_server", "--listen", "127.0.0.1:0", "--state-dir", state],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "make room" in done.stderr and "Traceback" not in done.stderr
    ballast.unlink()
    assert [path for path in before if not path.exists()] == []
    assert not list(state.glob(".*")), "nothing is left lying about"
    server.start()
    server.stop()


def admin_get(server: ServerProcess, path: str) -> Called:
    return Caller(server.url, server.admin_token).get(path)


# ------------------------------------------------------------ all at once


def _contend(number: int, address: str, token: str, barrier: Barrier, results: Any) -> None:
    """Ask for one lease after the other, each at the same instant as all the others."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.connect()
    won = []
    for round_number in range(ROUNDS):
        body = json.dumps(
            {
                "request_id": f"{number}-{round_number}",
                "nonce": f"nonce-of-contender-{number:04d}",
                "evidence": {"job_starts": 1},
                "global_job_id": "ap1#42.0#1795225431",
            }
        )
        barrier.wait(120)
        connection.request(
            "POST",
            f"/v1/workflows/race/subjobs/s-{round_number}/acquire",
            body,
            {"Authorization": f"Bearer {token}"},
        )
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status == 200:
            won.append((round_number, document["fence"]))
        elif document["code"] != "lease-still-live":
            won.append((round_number, document))
    results.put(won)


def test_of_50_processes_at_the_same_instant_one_gets_the_lease_each_time(
    server: ServerProcess,
) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(CONTENDERS), context.Queue()
    address = server.url.removeprefix("http://")
    contenders = [
        context.Process(
            target=_contend, args=(number, address, server.admin_token, barrier, results)
        )
        for number in range(CONTENDERS)
    ]
    for contender in contenders:
        contender.start()
    try:
        won = [win for _ in contenders for win in results.get(timeout=240)]
    finally:
        for contender in contenders:
            contender.join(10)
            if contender.exitcode is None:
                os.kill(contender.pid or 0, signal.SIGKILL)
    assert sorted(won) == [(round_number, 1) for round_number in range(ROUNDS)]
