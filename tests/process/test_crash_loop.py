"""A server that is killed again and again keeps no dead holder's lease for ever (rule 8)."""

from __future__ import annotations

import signal
import time

from tests.process.wire_call import NONCE, Caller
from tests.serving import ServerProcess

PATH = "/v1/workflows/loop/subjobs/s"
TTL_SECONDS = 3.0
UP_SECONDS = 1.5
#: So many runs have several ttl of uptime together, but none has one.
RUNS_MAX = 12


def test_the_lease_of_the_dead_ends_though_no_run_lasts_its_ttl(own_server: ServerProcess) -> None:
    def ask(nonce: str, call: str = "acquire", **body: object) -> tuple[int, str | None]:
        caller = Caller(own_server.url, own_server.admin_token)
        answer = caller.post(f"{PATH}/{call}", nonce=nonce, **body)
        return answer.status, answer.code

    assert ask(NONCE, ttl_seconds=TTL_SECONDS)[0] == 200
    asked = []
    for run in range(RUNS_MAX):
        own_server.stop(signal.SIGKILL)
        own_server.start()
        time.sleep(UP_SECONDS)  # the server's own clock counts; it cannot be moved from outside
        asked.append(ask(f"nonce-of-run-{run}-0123456789", ttl_seconds=TTL_SECONDS))
        if asked[-1][0] == 200:
            break
    assert asked[0] == (409, "lease-still-live"), "the holder had its time to be heard"
    assert asked[-1][0] == 200, asked


def test_a_holder_that_renews_in_each_run_keeps_its_lease(own_server: ServerProcess) -> None:
    caller = Caller(own_server.url, own_server.admin_token)
    body = {"nonce": NONCE, "ttl_seconds": 60.0}
    assert caller.post(f"{PATH}/acquire", **body).status == 200
    for _ in range(3):
        own_server.stop(signal.SIGKILL)
        own_server.start()
        caller = Caller(own_server.url, own_server.admin_token)
        assert caller.post(f"{PATH}/renew", nonce=NONCE, fence=1).status == 200
    other = caller.post(f"{PATH}/acquire", nonce="another-nonce-0123456789")
    assert other.code == "lease-still-live"
