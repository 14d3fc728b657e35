"""Bad input over the wire: refused, and the field named."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.process.wire_call import NONCE, Caller, acquire
from tests.serving import ServerProcess

from htlease.wire.protocol import BODY_MAX_BYTES


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff\xfe", "body"),
        (b"null", "body"),
        (b'{"request_id": "r", "nonce": "' + NONCE.encode() + b'", "fench": 1}', "fench"),
        (b'{"request_id": "r", "fence": 1}', "nonce"),
        (b'{"nonce": "n", "fence": 1}', "request_id"),
        (b'{"request_id": "", "nonce": "n", "fence": 1}', "request_id"),
        (b'{"request_id": "' + b"r" * 101 + b'", "nonce": "n", "fence": 1}', "request_id"),
        (b'{"request_id": 7, "nonce": "n", "fence": 1}', "request_id"),
        (b'{"request_id": "r", "nonce": "n", "fence": "1"}', "fence"),
        (b'{"request_id": "r", "nonce": "n", "fence": 1.5}', "fence"),
        (b'{"request_id": "r", "nonce": "n", "fence": true}', "fence"),
        (b'{"request_id": "r", "nonce": "n", "fence": 1e300}', "fence"),
        (b'{"request_id": "r", "nonce": "n", "fence": ' + b"9" * 400 + b"}", "fence"),
        (b'{"request_id": "r", "nonce": "n", "fence": 1, "details": 5}', "details"),
        (b'{"request_id": "r", "nonce": "\\ud800", "fence": 1}', "body"),
        (b"[" * 100_000, "body"),
    ],
)
def test_a_bad_body_is_refused_by_the_name_of_its_field(
    admin: Caller, subjob: str, body: bytes, field: str
) -> None:
    acquire(admin, subjob)
    before = admin.get(subjob).document
    called = admin.raw("POST", f"{subjob}/renew", body)
    assert called.code == "invalid"
    assert called.document["field"] == field
    after = admin.get(subjob).document
    assert before | {"expires_in_seconds": 0} == after | {"expires_in_seconds": 0}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"evidence": {"job_starts": -1}}, "evidence.job_starts"),
        ({"evidence": {"job_startz": 1}}, "evidence.job_startz"),
        ({"place": {"machine": 4}}, "place.machine"),
        ({"kind": "root"}, "kind"),
        ({"nonce": "short"}, "nonce"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"ttl_seconds": 1e9}, "ttl_seconds"),
        ({"plan": {"phases": []}}, "plan.phases"),
        ({"plan": {"phases": [{"name": "a b"}]}}, "phase.name"),
        ({"plan": {"phases": [{"name": "a", "runs": []}]}}, "plan.phases[0].runs"),
        ({"plan": {"phases": [{"name": "a"}, {"name": "a"}]}}, "plan.phases"),
        ({"plan": {"phases": [{"name": "a", "restart": "never"}]}}, "phase a: restart"),
        ({"plan": {"profile": "nope"}}, "profile"),
        ({"plan": {"phases": [{"name": "a"}], "takeover": "now"}}, "plan.takeover"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(
    admin: Caller, subjob: str, changes: dict[str, Any], field: str
) -> None:
    called = acquire(admin, subjob, **changes)
    assert called.code == "invalid" and called.document["field"] == field
    assert admin.get(subjob).code == "unknown-subjob"


@pytest.mark.parametrize(
    ("workflow", "subjob", "field"),
    [
        ("a%20b", "s", "workflow"),
        ("a%2Fb", "s", "workflow"),
        ("caf%C3%A9", "s", "workflow"),
        ("w", "%C3%28", "subjob"),
        ("w", "%00", "subjob"),
        ("w", "..", "subjob"),
        ("w", "%2e%2e", "subjob"),
        ("w", "x" * 201, "subjob"),
        ("", "s", "workflow"),
    ],
)
def test_a_bad_name_is_refused_and_named(
    admin: Caller, workflow: str, subjob: str, field: str
) -> None:
    called = acquire(admin, f"/v1/workflows/{workflow}/subjobs/{subjob}")
    assert called.code == "invalid" and called.document["field"] == field


def test_a_bad_phase_name_is_refused_and_named(admin: Caller, subjob: str) -> None:
    acquire(admin, subjob)
    called = admin.post(f"{subjob}/phases/a%2Fb/enter", fence=1, nonce=NONCE)
    assert called.code == "invalid" and called.document["field"] == "phase"


def test_names_with_all_allowed_characters_work_encoded_and_plain(admin: Caller) -> None:
    name = "A-z_9.~@:=+,#x"
    encoded = "".join(f"%{ord(char):02X}" for char in name)
    path = f"/v1/workflows/{encoded}/subjobs/{encoded}"
    assert acquire(admin, path).status == 200
    plain = name.replace("#", "%23")
    assert admin.get(f"/v1/workflows/{plain}/subjobs/{plain}").document["subjob"] == name


def test_a_bad_query_is_refused_and_named(admin: Caller, subjob: str) -> None:
    acquire(admin, subjob)
    for query, field in (("limit=x", "limit"), ("after=-1", "after"), ("after=%FF", "query")):
        called = admin.get(f"{subjob}/history?{query}")
        assert called.code == "invalid" and called.document["field"] == field
    assert admin.get("/v1/subjobs").document["field"] == "id"


def test_a_huge_body_is_refused_before_it_has_come(server: ServerProcess, admin: Caller) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(
            b"POST /v1/workflows/w/subjobs/s/acquire HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + server.admin_token.encode()
            + b"\r\ncontent-length: 100000000000\r\n\r\n"
        )
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ") and b'"too-large"' in answer

    def endless() -> Iterator[bytes]:
        for _ in range(BODY_MAX_BYTES // 1024 + 64):
            yield b" " * 1024

    called = admin.raw("POST", "/v1/workflows/w/subjobs/s/acquire", endless())  # type: ignore[arg-type]
    assert called.code == "too-large"


def test_the_largest_details_are_taken_and_larger_ones_refused(admin: Caller, subjob: str) -> None:
    acquire(admin, subjob)
    pair = {"fence": 1, "nonce": NONCE}
    text = "ü" * (32 * 1024)
    assert admin.post(f"{subjob}/renew", **pair, details=text).status == 200
    assert admin.get(subjob).document["details"] == text
    called = admin.post(f"{subjob}/renew", **pair, details=text + "x")
    assert called.code == "invalid" and called.document["field"] == "details"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "workflows/odd", b'{"request_id":"o","structure":1e999}'),
        ("PUT", "workflows/odd", b'{"request_id":"o","structure":NaN}'),
        ("PUT", "workflows/odd", b'{"request_id":"o","structure":' + b"9" * 5000 + b"}"),
        ("PUT", "workflows/odd", b'{"request_id":"o","structure":' + b"[" * 9000 + b"]" * 9000 + b"}"),
        ("PUT", "workflows/odd", b'{"request_id":"o","structure":' + b"[" * 900 + b"]" * 900 + b"}"),
        ("POST", "trim", b'{"older_than_seconds":864000,"after":18446744073709551615}'),
        ("POST", "trim", b'{"older_than_seconds":864000,"after":1' + b"0" * 400 + b"}"),
        ("POST", "tokens", b'{"workflow":"w","ttl_seconds":1' + b"0" * 400 + b"}"),
        ("PUT", "maintenance", b'{"ends_in_seconds":1e999}'),
    ],
)  # fmt: skip
def test_numbers_and_nesting_of_any_size_are_refused_by_name(
    server: ServerProcess, method: str, path: str, body: bytes
) -> None:
    admin = Caller(server.url, server.admin_token)
    called = admin.raw(method, f"/v1/{path}", body)
    assert called.code == "invalid" and called.document["field"], called
    assert admin.get("/v1/workflows/odd").code == "not-found"
    assert "Traceback" not in server.log_text
