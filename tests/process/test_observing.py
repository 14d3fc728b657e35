"""What monitors, service managers and people see of a running server."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.process.wire_call import Called, Caller
from tests.serving import ServerProcess

NONCE, OTHER = "nonce-of-a-test-0123456789", "nonce-of-another-0123456789"
PATIENCE_SECONDS = 30.0


def wait_for(is_so: Callable[[], Any], what: str) -> Any:
    """Return what `is_so` returns once it is true of something."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := is_so()):
        assert time.monotonic() < until, f"in vain waited for {what}"
        time.sleep(0.05)
    return found


def started(tmp_path: Path, *options: str | Path) -> ServerProcess:
    server = ServerProcess(tmp_path / "server", options=options)
    server.start()
    return server


def numbers(server: ServerProcess) -> dict[tuple[str, ...], float]:
    """Return every sample of a scrape: (name, label, value, ...) -> number."""
    called = Caller(server.url, None).get("/metrics")
    assert called.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(called.body)


def samples(scrape: bytes) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(scrape.decode()):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            labels = [text for pair in sorted(sample.labels.items()) for text in pair]
            series = (sample.name, *labels)
            assert series not in found, "the same series twice"
            found[series] = sample.value
    return found


def overloads(found: dict[tuple[str, ...], float]) -> dict[str, float]:
    """Return how often there was too much of what, as far as there was."""
    counted = {series: count for series, count in found.items() if count}
    return {
        series[2]: count
        for series, count in counted.items()
        if series[0] == "htlease_overloaded_total"
    }


def lines(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Return the lines of a JSON log that tell of an event."""
    found = [json.loads(line) for line in server.log_text.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def zombie_writes(server: ServerProcess) -> Called:
    """Let a second attempt take over, and the first one write."""
    admin, path = Caller(server.url, server.admin_token), "/v1/workflows/w/subjobs/s"
    assert admin.post(f"{path}/acquire", nonce=NONCE).status == 200
    assert admin.post(f"{path}/abandon", nonce=NONCE, fence=1).status == 200
    assert admin.post(f"{path}/acquire", nonce=OTHER).document["fence"] == 2
    refused = admin.post(f"{path}/renew", nonce=NONCE, fence=1, request_id="zombie-1")
    assert refused.code == "superseded-attempt"
    return refused


# ------------------------------------------------------------ metrics


def test_metrics_count_calls_refusals_batches_and_time(own_server: ServerProcess) -> None:
    before = numbers(own_server)
    zombie_writes(own_server)
    Caller(own_server.url, "no token of ours").get("/v1/workflows")
    Caller(own_server.url, None).get("/nowhere/at/all")
    after = numbers(own_server)

    def grown(*series: str) -> float:
        return after[series] - before.get(series, 0)

    def answered(call: str, code: str) -> float:
        return grown("htlease_requests_total", "call", call, "code", code)

    assert answered("acquire", "ok") == 2
    assert answered("abandon", "ok") == 1
    assert answered("renew", "superseded-attempt") == 1
    assert answered("workflows", "unauthorized") == 1
    assert answered("none", "not-found") == 1
    seconds = "htlease_request_duration_seconds"
    assert grown(f"{seconds}_count", "call", "acquire") == 2
    assert grown(f"{seconds}_bucket", "call", "acquire", "le", "+Inf") == 2
    assert grown(f"{seconds}_bucket", "call", "acquire", "le", "10.0") == 2
    assert 0 < grown(f"{seconds}_sum", "call", "acquire") < PATIENCE_SECONDS
    # One client at a time: a batch for each request that the disk has to hear of.
    assert grown("htlease_commit_requests_sum") >= 4
    assert grown("htlease_commit_duration_seconds_count") >= 4
    assert after["htlease_store_failing",] == after["htlease_queued_requests",] == 0
    assert after["htlease_cached_subjobs",] == 1
    assert after["htlease_subjobs", "status", "active"] == after["htlease_held_leases",] == 1
    written_at = after["htlease_store_last_write_timestamp_seconds",]
    assert abs(written_at - time.time()) < PATIENCE_SECONDS
    assert after["process_resident_memory_bytes",] > 1e6
    assert any(name[0] == "htlease_build_info" and "0.1.0" in name for name in after)


def test_metrics_tell_what_refused_requests_were_too_many_of(tmp_path: Path) -> None:
    room = 4
    server = ServerProcess(tmp_path / "server", options=("--rate-limit", "2"), files_max=100 + room)
    server.start()
    reader = Caller(server.url, server.token("w"))
    answers = [reader.get("/v1/flags").status for _ in range(40)]
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    scrape = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    with contextlib.ExitStack() as lines:
        busy = [lines.enter_context(socket.create_connection(address, 20)) for _ in range(room)]
        for line in busy:  # with an answer, and then with half a request
            line.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + scrape)
            assert line.recv(1000).endswith(b'{"status":"ok"}')
        late = lines.enter_context(socket.create_connection(address, 20))
        assert late.makefile("rb").readline().split()[1] == b"503"
        busy[0].sendall(b"\r\n")
        found = samples(busy[0].makefile("rb").read().partition(b"\r\n\r\n")[2])
    assert found["htlease_connections",] >= room == found["htlease_connections_max",]
    causes = overloads(found)
    assert causes == {"rate-limit": answers.count(503), "connections": 1}
    assert causes["rate-limit"] > 0
    server.stop()


# ------------------------------------------------------------ log


def test_json_lines_name_subjob_request_actor_and_code_and_no_secret(tmp_path: Path) -> None:
    server = started(tmp_path, "--log-format", "json")
    zombie_writes(server)
    token = server.token("w", ttl_seconds=60)
    Caller(server.url, server.admin_token).put("/v1/workflows/w", labels={"a": "b"})
    server.ask("PUT", "maintenance", {"ends_in_seconds": 60})
    secret = server.admin_token
    server.stop()
    (refused,) = lines(server, "an attempt was shut out")
    assert refused["level"] == "info" and refused["time"].endswith("Z")
    assert (refused["code"], refused["subjob"]) == ("superseded-attempt", "w/s")
    assert (refused["request_id"], refused["actor"]) == ("zombie-1", "admin")
    assert refused["fence"] == 1 and refused["duration_seconds"] > 0
    assert len(lines(server, "token minted")) == len(lines(server, "workflow changed")) == 1
    assert lines(server, "maintenance begun or prolonged")[0]["ends_in_seconds"] == 60
    assert len(lines(server, "started")) == len(lines(server, "stopped")) == 1
    assert lines(server, "acquire done") == [], "each request is told at debug only"
    for kept_to_itself in (NONCE, OTHER, token, secret):
        assert kept_to_itself not in server.log_text


def test_at_debug_every_command_has_a_line_with_its_attempt(tmp_path: Path) -> None:
    server = started(tmp_path, "--log-format", "json", "--log-level", "debug")
    server.command("w/s", "acquire", nonce=NONCE, global_job_id="ap1#42.0#1795225431")
    server.stop()
    (line,) = lines(server, "acquire done")
    assert line["attempt_id"].startswith("ap1#42.0#1795225431@") and line["level"] == "debug"
    assert NONCE not in server.log_text


def test_a_text_line_cannot_be_forged_by_a_name(tmp_path: Path) -> None:
    server = started(tmp_path)
    path = "/v1/workflows/w/subjobs/s"
    Caller(server.url, server.admin_token).post(f"{path}/acquire", nonce=NONCE)
    forged = "x\n2026-11-21T00:00:00.000Z ERROR forged"
    Caller(server.url, server.admin_token).post(
        f"{path}/renew", nonce=OTHER, fence=9, request_id=forged
    )
    server.stop()
    assert r"request_id='x\n2026-11-21" in server.log_text
    assert not any(line.endswith("ERROR forged") for line in server.log_text.splitlines())


def test_a_log_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "htlease.log"
    server = started(tmp_path, "--log-file", log)
    zombie_writes(server)
    log.rename(tmp_path / "htlease.log.1")
    server.ask("PUT", "maintenance", {"ends_in_seconds": 60})
    server.stop()
    assert "an attempt was shut out" in (tmp_path / "htlease.log.1").read_text()
    assert "maintenance begun or prolonged" in log.read_text()
    assert "maintenance" not in server.log_text


# ------------------------------------------------------------ readiness


def test_a_locked_store_is_told_as_such_and_recovered_from(own_server: ServerProcess) -> None:
    admin, path = Caller(own_server.url, own_server.admin_token), "/v1/workflows/w/subjobs"
    assert admin.post(f"{path}/a/acquire", nonce=NONCE).status == 200
    other_program = sqlite3.connect(
        own_server.folder / "htlease.sqlite3", isolation_level=None, check_same_thread=False
    )
    other_program.execute("BEGIN IMMEDIATE")
    refused = admin.post(f"{path}/b/acquire", nonce=NONCE)
    assert refused.code == "overloaded" and "locked" in refused.document["detail"]
    assert "locked" in admin.get("/readyz").document["detail"]
    assert overloads(numbers(own_server)) == {"other": 2}
    assert admin.get("/healthz").status == 200
    assert numbers(own_server)["htlease_store_failing",] == 1
    assert admin.get(f"{path}/a").document["status"] == "active", "reading goes on"
    other_program.execute("ROLLBACK")
    other_program.close()
    wait_for(lambda: admin.get("/readyz").status == 200, "the server to be ready again")
    assert admin.post(f"{path}/b/acquire", nonce=NONCE).document["fence"] == 1
    assert numbers(own_server)["htlease_commit_failures_total",] >= 1
    assert "the store takes no writes" in own_server.log_text
    assert "the store takes writes again" in own_server.log_text


# ------------------------------------------------------------ service managers


def test_systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        server = started(tmp_path)
        ready = manager.recv(4096).decode().splitlines()
        assert ready[0] == "READY=1" and server.url in ready[1]
        assert Caller(server.url, None).get("/readyz").status == 200
        assert [manager.recv(4096), manager.recv(4096)] == [b"WATCHDOG=1"] * 2
        server.signal(signal.SIGTERM)
        while (told := manager.recv(4096)) != b"STOPPING=1":
            assert told == b"WATCHDOG=1"
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_reload_ends_nothing_and_each_signal_to_stop_ends_it_well(
    tmp_path: Path, number: int
) -> None:
    server = started(tmp_path)
    for _ in range(3):
        server.signal(signal.SIGHUP)
        zombie = Caller(server.url, server.admin_token).get("/readyz")
        assert zombie.status == 200
    assert "told to look at its files again" in server.log_text
    assert server.end(number) == 0
    assert "stopped" in server.log_text and "Traceback" not in server.log_text
