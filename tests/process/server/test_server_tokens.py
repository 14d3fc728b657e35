"""Who may do what over the wire."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.process.wire_call import NONCE, Caller, acquire
from tests.serving import ServerProcess

from htlease.wire.protocol import PHASE_CALLS, SUBJOB_CALLS

_OTHER = "someone-else"
_PAST = {"starts_at": "2001-01-01T00:00:00Z", "until_at": "2001-01-01T01:00:00Z"}


def _matrix() -> list[tuple[str, str, dict[str, Any], str]]:
    """Call, path, body, and who may: a(dmin), w(orkflow token), s(ubjob token)."""
    pair = {"fence": 1, "nonce": NONCE}
    ours = "/v1/workflows/{w}/subjobs/s"
    rows: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", f"{ours}/acquire", {"nonce": NONCE, "kind": kind}, who)
        for kind, who in (("job", "aws"), ("pre", "aw"), ("post", "aw"), ("operator", "a"))
    ]
    rows += [
        ("POST", f"{ours}/{call}", dict(pair), "aws") for call in ("renew", "exited", "abandon")
    ]
    rows += [("POST", f"{ours}/phases/p/{call}", dict(pair), "aws") for call in PHASE_CALLS]
    rows += [
        ("POST", f"{ours}/enroll", {}, "aw"),
        ("POST", f"{ours}/ended", {"global_job_id": "a#1.0#1"}, "aw"),
        ("POST", f"{ours}/observed", {"global_job_id": "a#1.0#1", "what": "held"}, "aw"),
        ("POST", f"{ours}/commit", dict(pair), "aw"),
        ("POST", f"{ours}/settle", {**pair, "outcome": "failed"}, "aw"),
        ("POST", f"{ours}/cancel", {}, "a"),
        ("GET", ours, {}, "aws"),
        ("GET", f"{ours}/history", {}, "aws"),
        ("GET", "/v1/workflows/{w}", {}, "aw"),
        ("PUT", "/v1/workflows/{w}", {}, "a"),
        ("GET", "/v1/workflows", {}, "a"),
        ("POST", "/v1/tokens", {"workflow": "{w}"}, "a"),
        ("POST", "/v1/tokens", {"workflow": "{w}", "subjob": "s"}, "aw"),
        ("POST", "/v1/tokens", {"workflow": _OTHER, "subjob": "s"}, "a"),
        ("GET", "/v1/maintenance", {}, "aws"),
        ("PUT", "/v1/maintenance", {"ends_in_seconds": 0}, "a"),
        ("POST", "/v1/maintenance/announce", _PAST, "a"),
        ("POST", "/v1/maintenance/withdraw", {"starts_at": "2001-01-01T00:00:00Z"}, "a"),
        ("GET", "/v1/flags", {}, "aws"),
        ("PUT", "/v1/flags/f", {"is_up": True}, "a"),
        ("GET", "/v1/subjobs?id=x", {}, "aws"),
        ("POST", "/v1/workflows/{w}/subjobs/other/acquire", {"nonce": NONCE}, "aw"),
        ("GET", "/v1/workflows/{w}/subjobs/other", {}, "aw"),
        ("POST", f"/v1/workflows/{_OTHER}/subjobs/s/acquire", {"nonce": NONCE}, "a"),
        ("GET", f"/v1/workflows/{_OTHER}/subjobs/s", {}, "a"),
        ("GET", f"/v1/workflows/{_OTHER}", {}, "a"),
    ]
    return rows


def test_the_matrix_has_every_call_of_a_subjob() -> None:
    called = {path.rpartition("/")[2] for method, path, _, _ in _matrix() if method == "POST"}
    assert {*SUBJOB_CALLS, *PHASE_CALLS} <= called


@pytest.mark.parametrize("row", _matrix(), ids=lambda row: f"{row[0]} {row[1]} {row[2]}")
def test_a_token_reaches_as_far_as_it_should(
    server: ServerProcess, admin: Caller, workflow: str, row: tuple[str, str, dict[str, Any], str]
) -> None:
    method, path, body, who = row
    tokens = {
        "a": server.admin_token,
        "w": admin.mint(workflow=workflow),
        "s": admin.mint(workflow=workflow, subjob="s"),
    }
    for letter, token in tokens.items():
        caller = Caller(server.url, token)
        sent = json.loads(json.dumps(body).replace("{w}", workflow))
        where = path.format(w=workflow)
        call = {"GET": caller.get, "POST": caller.post, "PUT": caller.put}[method]
        is_of_subjobs = path.startswith("/v1/workflows")
        if not is_of_subjobs and method != "GET":
            called = caller.raw(method, path, json.dumps(sent).encode())
        else:
            called = call(where, **sent)
        if letter in who:
            assert called.status not in (401, 403), (letter, called)
        else:
            assert called.code == "forbidden", (letter, called)
    nobody = Caller(server.url, None).raw(method, path.format(w=workflow), b"{}")
    assert nobody.code == "unauthorized"
    assert nobody.headers["www-authenticate"].startswith("Bearer")


def test_a_narrower_token_expires_no_later_than_the_one_that_made_it(
    server: ServerProcess, admin: Caller, workflow: str
) -> None:
    asked = json.dumps({"workflow": workflow, "ttl_seconds": 60}).encode()
    wide = admin.raw("POST", "/v1/tokens", asked)
    caller = Caller(server.url, wide.document["token"])
    body = json.dumps({"workflow": workflow, "subjob": "s", "ttl_seconds": 3600}).encode()
    narrow = caller.raw("POST", "/v1/tokens", body)
    assert narrow.status == 200
    assert narrow.document["expires_at"] <= wide.document["expires_at"]


def test_what_a_job_token_did_is_recorded_under_its_id(
    server: ServerProcess, admin: Caller, workflow: str, subjob: str
) -> None:
    token = admin.mint(workflow=workflow, subjob="s")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    acquire(Caller(server.url, token), subjob)
    actors = {event["actor"] for event in admin.get(f"{subjob}/history").document["events"]}
    assert actors == {f"token:{claims['jti']}"}


def _forged(token: str, **changes: Any) -> Iterator[str]:
    """Yield tokens with changed claims under the old signature, no signature, no algorithm."""
    head, claims, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "==")) | changes

    def encoded(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    yield f"{head}.{encoded(changed)}.{signature}"
    yield f"{head}.{encoded(changed)}."
    yield f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(changed)}."


def test_forged_tokens_are_refused(
    server: ServerProcess, admin: Caller, workflow: str, subjob: str
) -> None:
    token = admin.mint(workflow=workflow, subjob="other")
    wrong = [
        *_forged(token, subjob="s"),
        "",
        "x",
        "a.b.c",
        server.admin_token[:-1],
        server.admin_token + "x",
        "é",
    ]
    for forged in wrong:
        called = Caller(server.url, None).raw(
            "POST", f"{subjob}/acquire", b"{}", authorization=f"Bearer {forged}"
        )
        assert called.code == "unauthorized", forged
        assert not forged or len(forged) < 5 or forged not in called.document["detail"]
    basic = Caller(server.url, None).raw("GET", subjob, authorization="Basic YTpi")
    assert basic.code == "unauthorized"


def test_a_token_ends_with_its_time_also_when_it_was_used_before(
    server: ServerProcess, admin: Caller, workflow: str, subjob: str
) -> None:
    acquire(admin, subjob)
    holder = Caller(server.url, admin.mint(workflow=workflow, ttl_seconds=2))
    assert holder.get(subjob).status == 200
    until = time.monotonic() + 20
    while (called := holder.get(subjob)).status == 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert called.code == "unauthorized" and "expired" in called.document["detail"]


def test_a_token_that_cannot_be_minted_is_refused_by_field(admin: Caller) -> None:
    for body, field in (
        ({"workflow": "a b"}, "workflow"),
        ({"workflow": "w", "subjob": "a/b"}, "subjob"),
        ({"workflow": "w", "ttl_seconds": -1}, "ttl_seconds"),
        ({"workflow": "w", "admin": True}, "admin"),
        ({}, "workflow"),
    ):
        called = admin.raw("POST", "/v1/tokens", json.dumps(body).encode())
        assert called.code == "invalid" and called.document["field"] == field
