"""Each role makes the calls of the table and no others, within its reach; tokens can be revoked."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.process.execution import wait_for
from tests.process.wire_call import Called, Caller
from tests.serving import ServerProcess

from htlease_server.api.routes import ROUTES, Route
from htlease_server.auth.roles import MAY, OPEN_TO_ALL, Role

NONCE = "a-nonce-of-at-least-16"
#: The least that each call has to be sent so that it is not refused for its body.
BODIES: dict[str, dict[str, Any]] = {
    "acquire": {"nonce": NONCE},
    **{
        call: {"fence": 1, "nonce": NONCE}
        for call in ("renew", "exited", "abandon", "commit", "enter", "complete", "fail")
    },
    "settle": {"fence": 1, "nonce": NONCE, "outcome": "failed"},
    "ended": {"global_job_id": "ap#1.0#1"},
    "put-maintenance": {"ends_in_seconds": 0},
    "announce": {"starts_at": "2001-01-01T00:00:00Z", "until_at": "2001-01-01T01:00:00Z"},
    "withdraw": {"starts_at": "2001-01-01T00:00:00Z"},
    "put-flag": {"is_up": True},
    "mint": {"workflow": "{w}", "subjob": "s"},
    "revoke": {"id": "nobody's"},
    "trim": {"older_than_seconds": 86400, "dry_run": True},
}
WITHOUT_REQUEST_ID = (
    *("put-maintenance", "announce", "withdraw", "put-flag"),
    *("mint", "revoke", "rotate-key", "trim"),
)


def _send(caller: Caller, route: Route, workflow: str) -> Called:
    path = route.template.format(workflow=workflow, subjob="s", phase="p", flag="f")
    if route.name == "find":
        path += "?id=x"
    if route.method == "GET":
        return caller.get(path)
    body = dict(BODIES.get(route.name, {}))
    if route.name not in WITHOUT_REQUEST_ID:
        body["request_id"] = os.urandom(8).hex()
    raw = json.dumps(body).replace("{w}", workflow).encode()
    return caller.raw(route.method, path, raw)


@pytest.fixture(scope="module")
def tokens(server: ServerProcess) -> dict[Role, str]:
    """A token of each role, all of which reach the workflow `roles`."""
    everywhere = {"workflows": ["*"]}
    return {
        Role.ADMIN: server.admin_token,
        Role.OPERATOR: _mint(server, role="operator"),
        Role.SUBMITTER: _mint(server, role="submitter", name="alice", **everywhere),
        Role.WORKFLOW: _mint(server, workflow="roles"),
        Role.JOB: _mint(server, workflow="roles", subjob="s"),
        Role.READER: _mint(server, role="reader"),
    }


def _mint(server: ServerProcess, **wanted: Any) -> str:
    return Caller(server.url, server.admin_token).mint(**wanted)


def test_every_call_is_in_the_table_or_open_to_all() -> None:
    names = {route.name for route in ROUTES}
    assert names == set(MAY) | set(OPEN_TO_ALL)
    assert not set(MAY) & set(OPEN_TO_ALL)
    assert all(Role.ADMIN in roles for roles in MAY.values())


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
def test_a_role_makes_its_calls_and_no_others(
    server: ServerProcess, tokens: dict[Role, str], role: Role
) -> None:
    caller = Caller(server.url, tokens[role])
    for route in ROUTES:
        if route.name in OPEN_TO_ALL or (route.name == "rotate-key" and role is Role.ADMIN):
            continue  # rotation has a test of its own
        answer = _send(caller, route, "roles")
        assert (answer.code == "forbidden") == (role not in MAY[route.name]), (route.name, answer)
        assert answer.status < 500


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [("cms-*", "cms-1", "cmsx"), ("cms-1", "cms-1", "cms-11"), ("cms*", "cmsx", "atlas-cms")],
)
@pytest.mark.parametrize("role", ["operator", "submitter", "reader"])
def test_patterns_say_how_far_a_token_reaches(
    server: ServerProcess, role: str, pattern: str, inside: str, outside: str
) -> None:
    for name in (inside, outside):
        server.ask("PUT", f"workflows/{name}", {"request_id": os.urandom(4).hex()})
    caller = Caller(server.url, _mint(server, role=role, workflows=[pattern], name="vo"))
    assert caller.get(f"/v1/workflows/{inside}").status == 200
    assert caller.get(f"/v1/workflows/{outside}").code == "forbidden"
    new = f"{os.urandom(4).hex()}-new"
    assert caller.put(f"/v1/workflows/{new}").code == "forbidden", "not even what is nobody's"
    listed = [one["workflow"] for one in caller.get("/v1/workflows").document["workflows"]]
    assert inside in listed and outside not in listed


def test_a_submitter_without_patterns_has_what_it_made_and_nothing_else(
    server: ServerProcess,
) -> None:
    alice, bob = (Caller(server.url, _mint(server, role="submitter", name=n)) for n in ("al", "bo"))
    name = f"own-{os.urandom(4).hex()}"
    path = f"/v1/workflows/{name}"
    assert alice.put(path, labels={"mine": "yes"}).status == 200
    assert alice.post(f"{path}/subjobs/s/enroll").status == 200
    job = Caller(server.url, alice.mint(workflow=name, subjob="t"))
    assert job.post(f"{path}/subjobs/t/acquire", nonce=NONCE).status == 200
    assert alice.get(f"{path}/subjobs/t/history").status == 200
    found = alice.get("/v1/subjobs?id=t").document["subjobs"]
    assert name in [one["workflow"] for one in found]
    assert name in [w["workflow"] for w in alice.get("/v1/workflows").document["workflows"]]

    for refused in (
        bob.get(path),
        bob.put(path, labels={"mine": "no"}),
        bob.put(f"{path}-copy", copy_of=name),
        bob.post(f"{path}/subjobs/s/cancel"),
        bob.post(f"{path}/subjobs/new/enroll"),
        bob.get(f"{path}/subjobs/s"),
        bob.raw("POST", "/v1/tokens", json.dumps({"workflow": name}).encode()),
    ):
        assert refused.code == "forbidden", refused
    assert bob.get("/v1/subjobs?id=t").document["subjobs"] == []
    assert name not in [w["workflow"] for w in bob.get("/v1/workflows").document["workflows"]]
    # Nobody's yet: a token for it would be one for whatever its maker puts there.
    assert (
        bob.raw("POST", "/v1/tokens", json.dumps({"workflow": f"{name}-x"}).encode()).code
        == "forbidden"
    )
    detail = bob.get(path).document["detail"]
    assert detail == f"this token is for a submitter of its own workflows, not for {name}"
    again = Caller(server.url, _mint(server, role="submitter", name="al"))
    assert again.post(f"{path}/subjobs/s/cancel").status == 200


def test_what_the_jobs_of_a_submitter_make_belongs_to_it(server: ServerProcess) -> None:
    name = f"vo-{os.urandom(4).hex()}"
    vo = Caller(server.url, _mint(server, role="submitter", name="vo", workflows=["vo-*"]))
    job = Caller(server.url, vo.mint(workflow=name, subjob="s"))
    assert job.post(f"/v1/workflows/{name}/subjobs/s/acquire", nonce=NONCE).status == 200
    assert vo.get(f"/v1/workflows/{name}").document["made_by"] == "vo"


def test_a_token_of_any_job_does_what_a_job_does_in_its_workflow_and_no_more(
    server: ServerProcess,
) -> None:
    """Jobs whose number nobody knows before share it."""
    job = Caller(server.url, _mint(server, workflow="many", role="job", ttl_seconds=40))
    for subjob in ("s1", "s2"):
        path = f"/v1/workflows/many/subjobs/{subjob}"
        held = job.post(f"{path}/acquire", nonce=NONCE, ttl_seconds=60)
        assert held.status == 200
        renewed = job.post(f"{path}/renew", fence=held.document["fence"], nonce=NONCE)
        assert renewed.status == 200
        # It would not outlast the lease, so that its holder gets a fresh one, for that subjob alone.
        fresh = Caller(server.url, renewed.document["token"])
        assert fresh.get(path).status == 200
        assert fresh.get(f"{path}-other").code == "forbidden"
        assert fresh.post(f"{path}/enroll").code == "forbidden"
    for path, body in (
        ("/v1/workflows/many/subjobs/s1/enroll", {}),
        ("/v1/workflows/many/subjobs/s1/cancel", {}),
        ("/v1/workflows/many/subjobs/s1/acquire", {"nonce": NONCE, "kind": "post"}),
        ("/v1/workflows/others/subjobs/s1/acquire", {"nonce": NONCE}),
    ):
        assert job.post(path, **body).code == "forbidden", path
    minted = json.dumps({"workflow": "many", "subjob": "s1"}).encode()
    assert job.raw("POST", "/v1/tokens", minted).code == "forbidden"


def test_a_token_of_any_job_can_be_for_one_cluster(server: ServerProcess) -> None:
    body = {"workflow": "shared", "role": "job", "global_job_id": "ap#7.*", "ttl_seconds": 40}
    job = Caller(server.url, _mint(server, **body))
    path = "/v1/workflows/shared/subjobs/s1"
    for other in ("ap#70.1#9", "ap2#7.1#9", "ap#7", None):
        asked = {"nonce": NONCE} | ({"global_job_id": other} if other else {})
        assert job.post(f"{path}/acquire", **asked).code == "forbidden", other
    held = job.post(f"{path}/acquire", nonce=NONCE, global_job_id="ap#7.1#9", ttl_seconds=60)
    assert held.status == 200
    renewed = job.post(f"{path}/renew", fence=held.document["fence"], nonce=NONCE)
    fresh = Caller(server.url, renewed.document["token"])
    again = fresh.post(f"{path}/acquire", nonce=NONCE + "2", global_job_id="ap#8.0#9")
    assert again.code == "forbidden"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "job", "workflow": "w", "subjob": "s"}, "subjob"),
        ({}, "workflow"),
        ({"role": "admin"}, "role"),
        ({"role": "job"}, "role"),
        ({"role": "king"}, "role"),
        ({"role": "submitter"}, "name"),
        ({"role": "reader", "workflow": "w"}, "workflow"),
        ({"role": "reader", "workflows": ["a*b"]}, "workflows"),
        ({"role": "reader", "workflows": [""]}, "workflows"),
        ({"workflow": "w", "workflows": ["w"]}, "workflows"),
        ({"workflow": "w", "global_job_id": "x"}, "global_job_id"),
        ({"workflow": "w", "subjob": "s", "job_starts": 1}, "job_starts"),
    ],
    ids=str,
)
def test_a_token_that_makes_no_sense_is_refused_by_field(
    server: ServerProcess, body: dict[str, Any], field: str
) -> None:
    admin = Caller(server.url, server.admin_token)
    refused = admin.raw("POST", "/v1/tokens", json.dumps(body).encode())
    assert refused.code == "invalid" and refused.document["field"] == field


# ------------------------------------------------------------ revoking


def _id_of(token: str) -> str:
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["jti"])


def _revoke(server: ServerProcess, **which: str) -> None:
    server.ask("POST", "tokens/revoke", {**which, "reason": "stolen"})


def test_a_revoked_token_counts_no_more_nor_does_what_came_of_it(
    own_server: ServerProcess,
) -> None:
    wide_token = own_server.token("w")
    wide = Caller(own_server.url, wide_token)
    narrow = Caller(own_server.url, wide.mint(workflow="w", subjob="s", ttl_seconds=2))
    other = Caller(own_server.url, own_server.token("w", subjob="s"))
    path = "/v1/workflows/w/subjobs/s"
    fence = narrow.post(f"{path}/acquire", nonce=NONCE, ttl_seconds=60).document["fence"]
    renewed = narrow.post(f"{path}/renew", fence=fence, nonce=NONCE).document["token"]
    fresh = Caller(own_server.url, renewed)
    assert fresh.get(path).status == wide.get(path).status == 200
    _revoke(own_server, id=_id_of(wide_token))
    for caller in (wide, narrow, fresh):
        refused = caller.get(path)
        assert refused.code == "unauthorized" and "revoked" in refused.document["detail"]
    assert other.get(path).status == 200
    own_server.stop()
    own_server.start()
    assert wide.get(path).code == fresh.get(path).code == "unauthorized"
    assert other.get(path).status == 200


def test_all_tokens_of_a_subjob_or_workflow_up_to_now_can_be_revoked(
    own_server: ServerProcess,
) -> None:
    def callers() -> list[Caller]:
        wanted: list[dict[str, Any]] = [{"subjob": "s"}, {"subjob": "t"}, {}]
        return [Caller(own_server.url, own_server.token("w", **more)) for more in wanted]

    def codes(some: list[Caller]) -> list[str | None]:
        paths = ("subjobs/s", "subjobs/t", "subjobs/s")
        return [c.get(f"/v1/workflows/w/{p}").code for c, p in zip(some, paths, strict=True)]

    unknown, refused = "unknown-subjob", "unauthorized"
    first = callers()
    assert codes(first) == [unknown] * 3
    _revoke(own_server, workflow="w", subjob="s")
    assert codes(first) == [refused, unknown, unknown]
    assert codes(callers()) == [unknown] * 3, "what is made later counts"
    assert not any(one["revoked"] for one in own_server.ask("GET", "tokens")["tokens"])
    _revoke(own_server, workflow="w")
    assert codes(first) == [refused] * 3
    assert all(one["revoked"] for one in own_server.ask("GET", "tokens")["tokens"])
    assert codes(callers()) == [unknown] * 3


def test_what_was_done_is_in_the_audit_and_shows_no_token(own_server: ServerProcess) -> None:
    token = own_server.token("w")
    submitter = own_server.ask("POST", "tokens", {"role": "submitter", "name": "alice"})["token"]
    caller = Caller(own_server.url, submitter)
    caller.put("/v1/workflows/hers")
    _revoke(own_server, id=_id_of(token))
    found = own_server.ask("GET", "audit")["deeds"]
    actor = f"token:{_id_of(submitter)} (submitter alice)"
    assert [(deed["deed"], deed["actor"]) for deed in found] == [
        ("mint-token", "admin"),
        ("mint-token", "admin"),
        ("put-workflow", actor),
        ("revoke-token", "admin"),
    ]
    assert found[3]["token_id"] == _id_of(token) and found[3]["reason"] == "stolen"
    listed = own_server.ask("GET", "tokens")["tokens"]
    assert [(one["role"], one["revoked"]) for one in listed] == [
        ("workflow", True),
        ("submitter", False),
    ]
    for secret in (token, submitter):
        assert secret not in json.dumps(found) and secret not in own_server.log_text
    assert re.search(r"tokens revoked.*actor=.?admin", own_server.log_text)


# ------------------------------------------------------------ keys


def _header(token: str) -> dict[str, Any]:
    part = token.split(".")[0]
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return header


@pytest.fixture
def state(own_server: ServerProcess, tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "server"


def test_a_new_key_signs_and_the_old_one_verifies_until_it_is_removed(
    own_server: ServerProcess, state: Path
) -> None:
    path = "/v1/workflows/w"
    old = own_server.token("w")
    keys = own_server.ask("POST", "keys/rotate", {})["keys"]
    assert [key["signs"] for key in keys] == [True, False]
    new = own_server.token("w")
    assert "kid" not in _header(old) and _header(new)["kid"] == keys[0]["kid"]
    file = state / f"signing.{keys[0]['kid']}.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() not in json.dumps(keys) + own_server.log_text
    callers = [Caller(own_server.url, token) for token in (old, new)]
    assert [caller.get(path).code for caller in callers] == ["not-found"] * 2
    own_server.stop()
    own_server.start()
    assert [caller.get(path).code for caller in callers] == ["not-found"] * 2
    (state / "signing.key").unlink()
    wait_for(lambda: callers[0].get(path).status == 401, "the server to miss the old key")
    assert callers[1].get(path).code == "not-found"
    header = base64.urlsafe_b64encode(json.dumps({**_header(new), "kid": "../admin"}).encode())
    forged = ".".join([header.decode().rstrip("="), *new.split(".")[1:]])
    assert Caller(own_server.url, forged).get(path).status == 401


def test_a_key_that_others_can_read_is_not_taken_up(own_server: ServerProcess, state: Path) -> None:
    token = own_server.token("w")
    file = state / "signing.20990101T000000Z-abcd.key"
    file.write_text("x" * 40)
    file.chmod(0o644)
    wait_for(lambda: "can be read by others" in own_server.log_text, "the server to say so")
    assert Caller(own_server.url, token).get("/v1/workflows/w").code == "not-found"
    assert "kid" not in _header(own_server.token("w"))
