"""Starter hooks, a thousand calls of them at once."""

from __future__ import annotations

import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.process.execution import marked
from tests.process.hooking import SECRETS, Called, HookedStart, Hooks
from tests.serving import ServerProcess


@pytest.mark.timeout(900)  # on two busy cores
def test_a_thousand_calls_keep_their_limits_and_leave_nothing(
    tmp_path: Path, hooks: Hooks, own_server: ServerProcess
) -> None:
    """Good, late, refused, and against servers that are dead or say nothing; all at once."""
    dice = random.Random(4711)
    mark = f"TEST_CALLS={os.urandom(6).hex()}"
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        urls = {
            "good": own_server.url,
            "dead": "http://127.0.0.1:1",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        kinds = [dice.choices(list(urls), [90, 6, 4])[0] for _ in range(250)]

        def life(number: int) -> list[tuple[str, Called]]:
            path, key = tmp_path / f"dir_{number}", f"calls/s{number}"
            start = HookedStart(path, hooks, own_server, key=key)
            start.environ[mark.split("=")[0]] = mark.split("=")[1]
            start.options = ["--ttl=60", "--wait-lease=0.5", "--wait-server=1"]
            url = urls[kinds[number]]
            why = dice.choice(["exit", "evict"])
            return [
                ("prepare", start.prepare("prepare_job_before_transfer", server=url)),
                ("prepare", start.prepare("prepare_job", server=url)),
                ("update", start.update()),
                ("exit", start.exit(why)),
            ]

        with ThreadPoolExecutor(8) as pool:
            lives = list(pool.map(life, range(250)))
        calls = [call for one in lives for call in one]
        good = [f"calls/s{number}" for number in range(250) if kinds[number] == "good"]
    assert len(calls) == 1000
    assert {called.status for _, called in calls} == {0}
    most = {"prepare": 0.5 + 1 + 2, "update": 1 + 10 + 5, "exit": 1 + 2}
    # What the machine adds, which is the same for those that have nothing to wait for.
    healthy = [one for one, kind in zip(lives, kinds, strict=True) if kind == "good"]
    busy_seconds = 2 * max(called.seconds for one in healthy for _, called in one)
    late = [(name, called) for name, called in calls if called.seconds > most[name] + busy_seconds]
    assert not late
    assert marked(mark) == []
    texts = [called.stdout + called.stderr for _, called in calls]
    texts += [own_server.log_text]
    secrets = [*SECRETS.values(), own_server.admin_token]
    assert not [secret for secret in secrets for text in texts if secret in text]
    ends = [own_server.events(key, "attempt-exited", "lease-abandoned") for key in good]
    assert len(good) > 200
    assert {len(events) for events in ends} == {1}, "each of them was leased, and ended once"
