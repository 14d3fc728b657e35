"""Tokens that are shorter than their jobs: renewed through the lease, for as long as it is held."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.process.execution import Sandbox, wait_for
from tests.process.hooking import HookedStart
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

NONCE = "a-nonce-of-at-least-16"
#: A token's life; half of it has to be enough for a renewal on a busy machine.
SHORT_SECONDS = 8.0
NewStart = Callable[..., HookedStart]


def _short_token(server: ServerProcess, key: str) -> str:
    workflow, _, subjob = key.partition("/")
    return server.token(workflow, subjob=subjob, ttl_seconds=SHORT_SECONDS)


def _wait_until_expired(server: ServerProcess, key: str, token: str) -> None:
    workflow, _, subjob = key.partition("/")
    caller = Caller(server.url, token)
    path = f"/v1/workflows/{workflow}/subjobs/{subjob}"
    wait_for(lambda: caller.get(path).status == 401, "the token to expire")


def _actors(server: ServerProcess, key: str) -> list[str]:
    return list(dict.fromkeys(event["actor"] for event in server.history(key)))


def test_a_job_that_outlives_its_token_goes_on_with_fresh_ones(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    token = _short_token(server, sandbox.key)
    sandbox.write("htlease.token", token)
    script = sandbox.script(
        "managed",
        """set -e
"$HTLEASE" phase enter first
echo > on
until [ -e go ]; do sleep 0.1; done
"$HTLEASE" phase complete first
"$HTLEASE" phase enter second
echo saved > notes
"$HTLEASE" details notes
"$HTLEASE" phase complete second""",
    )
    plan = sandbox.write("plan.toml", '[[phase]]\nname = "first"\n[[phase]]\nname = "second"\n')
    job = sandbox.start("--ttl", "4", "--plan", str(plan), "--", script)
    sandbox.wait_text("on", "\n")
    _wait_until_expired(server, sandbox.key, token)
    kept = sandbox.path / ".htlease" / "renewed-token"
    assert kept.stat().st_mode & 0o777 == 0o600
    sandbox.write("go", "")
    assert job.wait(60) == 0, sandbox.messages
    assert "refuses" not in sandbox.messages
    done = [event["phase"] for event in server.events(sandbox.key, "phase-completed")]
    assert done == ["first", "second"]
    assert server.subjob(sandbox.key)["details"] == "saved\n"
    assert len(_actors(server, sandbox.key)) >= 2, "each token has an ID of its own"
    assert not kept.exists(), "nothing is left for a transfer"


def test_hooks_go_on_with_fresh_tokens(new_start: NewStart, server: ServerProcess) -> None:
    start = new_start(token="")
    start.token = _short_token(server, start.key)
    start.transfer_token()
    assert start.prepare().code == 0

    workflow, _, subjob = start.key.partition("/")
    first = Caller(server.url, start.token)

    def has_expired() -> bool:
        updated = start.update()
        assert updated.code == 0 and "not renewed" not in updated.stderr, updated
        return first.get(f"/v1/workflows/{workflow}/subjobs/{subjob}").status == 401

    wait_for(has_expired, "the first token to expire")
    kept = start.path / ".htlease-hooks" / "renewed-token"
    assert kept.stat().st_mode & 0o777 == 0o600
    later = start.update()
    assert "not renewed" not in later.stderr and "unauthorized" not in later.stderr
    assert start.exit("exit").code == 0
    assert start.events("attempt-exited"), "the end was recorded with a token that came later"


def _acquire(caller: Caller, path: str, starts: int, nonce: str) -> int:
    taken = caller.post(
        f"{path}/acquire",
        nonce=nonce,
        global_job_id="ap#1.0#1",
        evidence={"job_starts": starts},
        ttl_seconds=60,
        plan={"phases": [{"name": "p"}], "takeover": "immediate"},
    )
    assert taken.status == 200, taken
    fence: int = taken.document["fence"]
    return fence


def test_a_superseded_attempt_gets_no_fresh_token(server: ServerProcess) -> None:
    key = f"renewal/{os.urandom(4).hex()}"
    path = f"/v1/workflows/renewal/subjobs/{key.partition('/')[2]}"
    # Shorter than the lease, so that every renewal by its holder brings a fresh one.
    old, new = (Caller(server.url, _short_token(server, key)) for _ in range(2))
    first = _acquire(old, path, 1, NONCE)
    renewed = old.post(f"{path}/renew", fence=first, nonce=NONCE)
    assert renewed.status == 200 and renewed.document["token"]
    second = _acquire(new, path, 2, NONCE + "2")
    assert second > first
    refused = old.post(f"{path}/renew", fence=first, nonce=NONCE)
    assert refused.code == "superseded-attempt" and "token" not in refused.document
    assert new.post(f"{path}/renew", fence=second, nonce=NONCE + "2").document["token"]


def test_only_the_token_of_one_subjob_renews_itself(server: ServerProcess) -> None:
    name = os.urandom(4).hex()
    path = f"/v1/workflows/renewal/subjobs/{name}"
    wide = Caller(server.url, server.token("renewal", ttl_seconds=SHORT_SECONDS))
    fence = _acquire(wide, path, 1, NONCE)
    renewed = wide.post(f"{path}/renew", fence=fence, nonce=NONCE)
    assert renewed.status == 200 and "token" not in renewed.document


def test_what_a_workflows_token_made_is_renewed_no_longer_than_that(server: ServerProcess) -> None:
    name = os.urandom(4).hex()
    path = f"/v1/workflows/renewal/subjobs/{name}"
    wide = Caller(server.url, server.token("renewal", ttl_seconds=SHORT_SECONDS))
    narrow = Caller(server.url, wide.mint(workflow="renewal", subjob=name, ttl_seconds=3600))
    fence = _acquire(narrow, path, 1, NONCE)
    renewed = narrow.post(f"{path}/renew", fence=fence, nonce=NONCE)
    assert renewed.status == 200 and "token" not in renewed.document


def test_a_token_of_one_submission_or_start_acquires_for_no_other(server: ServerProcess) -> None:
    name = os.urandom(4).hex()
    path = f"/v1/workflows/renewal/subjobs/{name}"
    wanted = {"workflow": "renewal", "subjob": name, "global_job_id": "ap#1.0#1"}
    of_job = Caller(server.url, server.token(**wanted))
    of_start = Caller(server.url, server.token(**wanted, job_starts=2))

    def code(caller: Caller, starts: int, job: str | None = "ap#1.0#1") -> str | None:
        body = {"global_job_id": job} if job else {}
        evidence = {"job_starts": starts}
        return caller.post(f"{path}/acquire", nonce=NONCE, evidence=evidence, **body).code

    assert code(of_job, 1, "ap#2.0#1") == code(of_job, 1, None) == "forbidden"
    assert code(of_start, 1) == code(of_start, 3) == "forbidden"
    assert code(of_start, 2) is None
    assert code(of_job, 2) is None


def test_a_fresh_token_is_for_the_same_and_no_more(server: ServerProcess, tmp_path: Path) -> None:
    name = os.urandom(4).hex()
    path = f"/v1/workflows/renewal/subjobs/{name}"
    wanted = {"workflow": "renewal", "subjob": name, "global_job_id": "ap#1.0#1"}
    caller = Caller(server.url, server.token(**wanted, ttl_seconds=SHORT_SECONDS))
    fence = _acquire(caller, path, 1, NONCE)
    fresh = Caller(
        server.url, caller.post(f"{path}/renew", fence=fence, nonce=NONCE).document["token"]
    )
    assert fresh.get(path).status == 200
    assert fresh.get("/v1/workflows/renewal").code == "forbidden"
    assert fresh.get(f"{path}x").code == "forbidden"
    other = fresh.post(f"{path}/acquire", nonce=NONCE + "3", global_job_id="ap#9.0#1")
    assert other.code == "forbidden"
    body = json.dumps({"workflow": "renewal", "subjob": name}).encode()
    assert fresh.raw("POST", "/v1/tokens", body).code == "forbidden"
