"""Two servers over one database and one set of key files: what one is told, the other heeds."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import shared_cluster
from tests.process.execution import wait_for
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

PATH = "/v1/workflows/w/subjobs/s"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    cluster = shared_cluster()
    store = ("--store", cluster.url(cluster.new_database()))
    first = ServerProcess(tmp_path / "first", options=store)
    token_file = tmp_path / "first" / "admin.token"
    second = ServerProcess(
        tmp_path / "second", options=(*store, "--admin-token-file", str(token_file))
    )
    first.start()
    second.start()
    yield first, second
    second.stop()
    first.stop()


def test_a_token_revoked_on_one_counts_on_no_other(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = servers
    token = first.token("w", subjob="s")
    there = Caller(second.url, token)
    assert there.get(PATH).code == "unknown-subjob", "its key is the other's too"
    first.ask("POST", "tokens/revoke", {"workflow": "w", "subjob": "s"})
    assert Caller(first.url, token).get(PATH).status == 401
    wait_for(lambda: there.get(PATH).status == 401, "the other server to hear of it", 20)
    assert Caller(second.url, first.token("w", subjob="s")).get(PATH).code == "unknown-subjob"


def test_a_new_key_of_one_is_known_to_the_other_at_once(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = servers
    kid = first.ask("POST", "keys/rotate", {})["keys"][0]["kid"]
    token = first.token("w", subjob="s")
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header["kid"] == kid
    assert Caller(second.url, token).get(PATH).code == "unknown-subjob"


def test_a_workflow_belongs_to_its_maker_on_every_server(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = servers
    tokens = [
        first.ask("POST", "tokens", {"role": "submitter", "name": name})["token"]
        for name in ("alice", "bob")
    ]
    assert Caller(first.url, tokens[0]).put("/v1/workflows/hers").status == 200
    path = "/v1/workflows/hers/subjobs/s"
    assert Caller(second.url, tokens[1]).post(f"{path}/enroll").code == "forbidden"
    assert Caller(second.url, tokens[1]).put("/v1/workflows/hers").code == "forbidden"
    assert Caller(second.url, tokens[0]).post(f"{path}/enroll").status == 200
    assert Caller(second.url, tokens[1]).post(f"{path}/cancel").code == "forbidden"
    assert Caller(second.url, tokens[0]).post(f"{path}/cancel").status == 200
    actors = [event["actor"] for event in first.history("hers/s")]
    assert all(actor.endswith("(submitter alice)") for actor in actors)
