"""The wire protocol against a real server process."""

from __future__ import annotations

import base64
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.process.wire_call import Called, Caller
from tests.serving import ServerProcess

from htlease.messages import STATUS_OF_CODE
from htlease.protocol import BODY_MAX_BYTES, PHASE_CALLS, SUBJOB_CALLS

NONCE = "nonce-of-a-test-0123456789"
_NUMBERS = itertools.count(1)


@pytest.fixture
def admin(server: ServerProcess) -> Caller:
    return Caller(server.url, server.admin_token)


@pytest.fixture
def workflow() -> str:
    """A workflow that no other test uses."""
    return f"http-{next(_NUMBERS)}"


@pytest.fixture
def subjob(workflow: str) -> str:
    return f"/v1/workflows/{workflow}/subjobs/s"


def acquire(admin: Caller, subjob: str, **changes: Any) -> Called:
    body = {
        "nonce": NONCE,
        "global_job_id": "ap1#42.0#1795225431",
        "evidence": {"job_starts": 1, "shadow_starts": 1},
        **changes,
    }
    return admin.post(f"{subjob}/acquire", **body)


def newer(admin: Caller, subjob: str, **changes: Any) -> Called:
    """Ask as the second start of the same submission."""
    evidence = {"job_starts": 2, "shadow_starts": 2}
    return acquire(admin, subjob, nonce="nonce-of-the-second-start", evidence=evidence, **changes)


# ------------------------------------------------------------ the calls


def test_a_whole_job_over_the_wire(admin: Caller, workflow: str, subjob: str) -> None:
    plan = {"phases": [{"name": "fetch"}, {"name": "push", "restart": "once", "needs": ["net"]}]}
    pair = {"fence": 1, "nonce": NONCE}
    assert admin.post(f"{subjob}/enroll", links={"ce": f"ce#{workflow}"}).document == {"epoch": 1}
    grant = acquire(admin, subjob, plan=plan, host="ep1", ttl_seconds=60).document
    assert grant["fence"] == 1 and grant["epoch"] == 1
    assert grant["attempt_id"] == "ap1#42.0#1795225431@1.1"
    assert grant["phase"] == "fetch" and grant["reclaimed"] is False
    assert grant["phases"][1]["needs"] == ["net"]
    assert 0 < grant["expires_in_seconds"] <= 60
    renewal = admin.post(f"{subjob}/renew", **pair, details="half way").document
    assert renewal["order"] == "continue"
    for phase in ("fetch", "push"):
        entered = admin.post(f"{subjob}/phases/{phase}/enter", **pair).document
        assert entered["entered_fence"] == 1 and entered["entered_at"].endswith("Z")
        done = admin.post(f"{subjob}/phases/{phase}/complete", **pair, artifacts={"o": "sha"})
        assert done.document["artifacts"] == {"o": "sha"}
    exited = admin.post(f"{subjob}/exited", **pair, exit_code=0).document
    assert exited == {"status": "complete", "fence": 1, "outcome": "complete"}

    shown = admin.get(subjob).document
    assert (shown["status"], shown["host"], shown["exit_code"]) == ("complete", "ep1", 0)
    assert [phase["run"] for phase in shown["phases"]] == [False, False]
    assert shown["attempts"][0]["end"] == "exited"
    assert shown["submissions"][0]["links"] == {"ce": f"ce#{workflow}"}
    history = admin.get(f"{subjob}/history").document
    assert [event["event"] for event in history["events"]] == [
        "submission-enrolled",
        "submission-seen",
        "lease-acquired",
        "details-saved",
        "phase-entered",
        "phase-completed",
        "phase-entered",
        "phase-completed",
        "subjob-closed",
        "attempt-exited",
    ]
    assert all(event["actor"] == "admin" for event in history["events"])
    page = admin.get(f"{subjob}/history?after=3&limit=2").document
    assert [event["seq"] for event in page["events"]] == [4, 5] and page["next"] == 5
    listed = admin.get(f"/v1/workflows/{workflow}").document
    assert listed["state"] == "complete" and listed["counts"] == {"complete": 1}
    found = admin.get(f"/v1/subjobs?id=ce%23{workflow}").document["subjobs"]
    assert [one["workflow"] for one in found] == [workflow]


def test_scripts_and_operators_use_the_same_calls(admin: Caller, subjob: str) -> None:
    for number, kind in enumerate(("pre", "job", "post", "operator"), 1):
        pair = {"fence": number, "nonce": f"{NONCE}-{kind}"}
        grant = acquire(admin, subjob, kind=kind, nonce=pair["nonce"])
        assert grant.document["fence"] == number
        if kind == "post":
            assert admin.post(f"{subjob}/phases/run/fail", **pair, reason="x").status == 200
        assert admin.post(f"{subjob}/abandon", **pair, reason="done").status == 200
    last = {"fence": 5, "nonce": f"{NONCE}-last"}
    acquire(admin, subjob, kind="operator", nonce=last["nonce"])
    settled = admin.post(f"{subjob}/settle", **last, outcome="failed", reason="gone")
    assert settled.document["outcome"] == "failed"


def test_a_workflow_is_made_changed_copied_and_listed(admin: Caller, workflow: str) -> None:
    path = f"/v1/workflows/{workflow}"
    made = admin.put(path, profile="cts", labels={"team": "x"}, structure={"n": [1]})
    assert made.document["plan"]["profile"].startswith("cts:")
    assert made.document["state"] == "empty"
    changed = admin.put(path, template=True).document
    assert changed["template"] is True and changed["structure"] == {"n": [1]}
    refused = acquire(admin, f"{path}/subjobs/s")
    assert refused.code == "invalid" and refused.document["field"] == "workflow"
    copied = admin.put(f"{path}-copy", copy_of=workflow).document
    assert copied["template"] is False and copied["labels"] == {"team": "x"}
    names = [one["workflow"] for one in admin.get("/v1/workflows?limit=1000").document["workflows"]]
    assert {workflow, f"{workflow}-copy"} <= set(names)


def test_a_request_that_comes_again_is_answered_again(admin: Caller, subjob: str) -> None:
    acquire(admin, subjob)
    body = {"fence": 1, "nonce": NONCE, "request_id": "r-1"}
    first = admin.post(f"{subjob}/phases/run/enter", **body, client_at="2026-11-21T04:00:00Z")
    again = admin.post(f"{subjob}/phases/run/enter", **body, client_at="2026-11-21T05:00:00Z")
    assert first.status == 200 and first.body == again.body


# ------------------------------------------------------------ every refusal


def test_lease_still_live_says_when_to_come_again(admin: Caller, subjob: str) -> None:
    acquire(admin, subjob)
    called = newer(admin, subjob)
    assert called.code == "lease-still-live" and called.status == 409
    assert int(called.headers["retry-after"]) >= called.document["retry_after_seconds"] > 0
    assert called.document["subjob"] in subjob.replace("/subjobs", "")
    assert admin.post(f"{subjob}/renew", fence=1, nonce=NONCE).document["order"] == "stop"


def test_every_other_refusal_of_a_write(admin: Caller, subjob: str) -> None:
    pair = {"fence": 1, "nonce": NONCE}
    assert admin.post(f"{subjob}/renew", **pair).code == "unknown-subjob"
    assert admin.get(subjob).code == "unknown-subjob"
    acquire(admin, subjob)
    assert admin.post(f"{subjob}/renew", fence=9, nonce=NONCE).code == "stale-fence"
    assert admin.post(f"{subjob}/phases/other/enter", **pair).code == "phase-order"
    assert admin.post(f"{subjob}/phases/run/enter", **pair, request_id="r").status == 200
    assert admin.post(f"{subjob}/exited", **pair, request_id="r").code == "request-id-reused"
    admin.post(f"{subjob}/abandon", **pair)
    assert newer(admin, subjob).document["fence"] == 2
    assert admin.post(f"{subjob}/renew", **pair).code == "superseded-attempt"
    assert acquire(admin, subjob).code == "superseded-attempt"
    assert admin.post(f"{subjob}/cancel", reason="enough").status == 200
    closed = acquire(admin, subjob, nonce="nonce-of-the-third-start", evidence={"job_starts": 3})
    assert closed.code == "subjob-closed" and closed.document["outcome"] == "cancelled"


def test_an_end_seen_from_the_access_point_frees_the_lease(admin: Caller, subjob: str) -> None:
    evidence = {"job_starts": 1, "shadow_starts": 1}
    acquire(admin, subjob, evidence=evidence, global_job_id="ap1#7.0#1795225431")
    named = {"global_job_id": "ap1#7.0#1795225431", "shadow_starts": 1, "exit_code": 3}
    assert admin.post(f"{subjob}/ended", **named, job_starts=2).document["status"] == "active"
    assert admin.post(f"{subjob}/ended", **named, job_starts=1).document["status"] == "exited"
    assert admin.get(subjob).document["attempts"][0]["exit_code"] == 3


def test_the_history_names_the_relays_that_a_request_came_through(
    admin: Caller, subjob: str
) -> None:
    direct = acquire(admin, subjob)
    pair = {"fence": direct.document["fence"], "nonce": NONCE, "request_id": "r-via"}
    via = "1.1 ap1.example.org (htlease-relay)"
    body = json.dumps(pair).encode()
    assert admin.raw("POST", f"{subjob}/phases/run/enter", body, via=via).status == 200
    events = admin.get(f"{subjob}/history").document["events"]
    assert [event["via"] for event in events if event["event"] == "phase-entered"] == [via]
    assert {event["via"] for event in events if event["event"] == "lease-acquired"} == {None}


def test_a_maintenance_window_is_announced_prolonged_and_ended(admin: Caller) -> None:
    def put(**body: object) -> dict[str, Any]:
        called = admin.raw("PUT", "/v1/maintenance", json.dumps(body).encode())
        assert called.status == 200, called
        return dict(called.document)

    first = put(ends_in_seconds=60, reason="a disk")["open"]
    assert (first["reason"], first["is_open"], first["actor"]) == ("a disk", True, "admin")
    longer = put(ends_in_seconds=3600)["open"]
    assert longer["started_at"] == first["started_at"]
    assert longer["until_at"] > first["until_at"]
    assert put(ends_in_seconds=0)["open"] is None
    assert admin.get("/v1/maintenance").document["windows"][0]["reason"] == "a disk"
    for bad in (-1, 1e9, "soon"):
        called = admin.raw("PUT", "/v1/maintenance", json.dumps({"ends_in_seconds": bad}).encode())
        assert (called.code, called.document["field"]) == ("invalid", "ends_in_seconds")


def test_statuses_are_those_of_the_table(admin: Caller, subjob: str) -> None:
    acquire(admin, subjob)
    for called in (
        newer(admin, subjob),
        admin.post(f"{subjob}/renew", fence=9, nonce=NONCE),
        admin.get(f"{subjob}x"),
        admin.get("/nothing"),
        admin.raw("DELETE", subjob),
        admin.raw("POST", f"{subjob}/renew", b"x" * (BODY_MAX_BYTES + 1)),
        admin.post(f"{subjob}/renew"),
    ):
        assert STATUS_OF_CODE[str(called.code)] == called.status


def test_wrong_paths_and_methods_are_named(admin: Caller, subjob: str) -> None:
    for path in ("/v1", "/v1/workflows/", f"{subjob}/", f"{subjob}/steal", f"{subjob}/phases/run"):
        called = admin.post(path)
        assert called.code in ("not-found", "invalid", "method-not-allowed"), path
    called = admin.raw("PATCH", "/v1/workflows/w")
    assert called.code == "method-not-allowed"
    assert called.headers["allow"] == "GET, PUT" and "PATCH" in called.document["detail"]
    assert admin.raw("HEAD", "/healthz").status == 200


# ------------------------------------------------------------ bad input


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


# ------------------------------------------------------------ who may do what

_OTHER = "someone-else"


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
        if path in ("/v1/tokens", "/v1/maintenance", "/v1/flags/f") and method != "GET":
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


# ------------------------------------------------------------ for monitors and machines


def test_monitors_need_no_token(server: ServerProcess) -> None:
    nobody = Caller(server.url, None)
    assert nobody.get("/healthz").document == {"status": "ok"}
    assert nobody.get("/readyz").document == {"status": "ok"}
    assert b"htlease_commit_requests" in nobody.get("/metrics").body
    assert b"htlease" in nobody.get("/").body


def test_the_openapi_document_describes_every_call(server: ServerProcess) -> None:
    document = Caller(server.url, None).get("/openapi.json").document
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] and document["info"]["version"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids)) and {*SUBJOB_CALLS, *PHASE_CALLS} <= set(ids)
    for path, _, operation in operations:
        in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert in_path == re.findall(r"{(\w+)}", path)
        assert operation["responses"]["200"]["description"]
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))):
        assert reference.startswith("#/")
        found = document
        for part in reference[2:].split("/"):
            found = found[part]
        assert found["type"] == "object"
    body = document["components"]["schemas"]["AcquireBody"]
    assert body["additionalProperties"] is False
    assert {"nonce", "request_id"} <= set(body["required"])
    assert {"kind", "evidence", "place", "plan", "ttl_seconds"} <= set(body["properties"])
