"""The wire protocol against a real server process."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.process.wire_call import NONCE, Called, Caller, acquire, newer
from tests.serving import ServerProcess

from htlease.rules.messages import STATUS_OF_CODE
from htlease.wire.protocol import BODY_MAX_BYTES, PHASE_CALLS, SUBJOB_CALLS, rfc3339

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


def test_the_history_names_the_agents_that_a_request_came_through(
    admin: Caller, subjob: str
) -> None:
    direct = acquire(admin, subjob)
    pair = {"fence": direct.document["fence"], "nonce": NONCE, "request_id": "r-via"}
    via = "1.1 ap1.example.org (htlease-agent)"
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


def test_a_window_is_announced_moved_and_withdrawn(admin: Caller) -> None:
    def post(call: str, **body: object) -> Called:
        return admin.raw("POST", f"/v1/maintenance/{call}", json.dumps(body).encode())

    begin = int(time.time()) + 86400.0
    first, second, third = rfc3339(begin), rfc3339(begin + 3600), rfc3339(begin + 7200)
    in_another_zone = rfc3339(begin + 3600.75).replace("Z", "+01:00")
    called = post("announce", starts_at=in_another_zone, until_at=second)
    assert called.status == 200, called
    assert called.document["open"] is None
    assert called.document["next"]["started_at"] == first, "to the second, in UTC"
    moved = post(
        "announce", starts_at=second, until_at=third, instead_of=first, reason="x"
    ).document
    assert [window["started_at"] for window in moved["windows"] if window["is_announced"]] == [
        second
    ]
    assert post("withdraw", starts_at=second).document["next"] is None
    for call, body, field in (
        ("announce", {"starts_at": first, "until_at": first}, "until_at"),
        ("announce", {"starts_at": "2001-01-01T00:00:00Z", "until_at": first}, "starts_at"),
        ("announce", {"starts_at": "0001-01-01T00:00:00+14:00", "until_at": first}, "starts_at"),
        ("announce", {"starts_at": first, "until_at": "9999-12-31T23:59:59-14:00"}, "until_at"),
        ("announce", {"starts_at": first.rstrip("Z"), "until_at": second}, "starts_at"),
        ("withdraw", {}, "starts_at"),
    ):
        refused = post(call, **body)
        assert (refused.code, refused.document["field"]) == ("invalid", field), (call, body)
    assert post("withdraw", starts_at=third).code == "not-found"


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
