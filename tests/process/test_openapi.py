"""The published OpenAPI document: whatever it allows is taken, whatever it forbids is refused.

schemathesis makes the requests up; `schemathesis.toml` says how many, and `docs/correctness.md`
how to have more. All its checks are on: no 5xx, nothing undocumented, no answer that is not as
the document says, and no way around the token.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import pytest
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

HERE = Path(__file__).parent

CALLERS: dict[str, Callable[[ServerProcess], str]] = {
    "admin": lambda server: server.admin_token,
    "workflow": lambda server: server.token("0"),
    "job": lambda server: server.token("0", subjob="0"),
    "submitter": lambda server: server.ask(
        "POST", "tokens", {"role": "submitter", "name": "alice"}
    )["token"],
    "nobody": lambda server: "no.such.token",
}


@pytest.mark.parametrize("who", CALLERS)
def test_the_server_does_what_its_openapi_document_says(
    own_server: ServerProcess, tmp_path: Path, who: str
) -> None:
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--no-color"),
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", f"{own_server.url}/openapi.json", "--continue-on-failure"),
            *("--header", f"Authorization: Bearer {CALLERS[who](own_server)}"),
            *("--max-examples", os.environ.get("HTLEASE_FUZZ_EXAMPLES", "8")),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stateful" in done.stdout, done.stdout
    assert Caller(own_server.url, None).get("/readyz").status == 200
    assert "Traceback" not in own_server.log_text


def test_every_schema_of_the_document_is_one(server: ServerProcess) -> None:
    document = Caller(server.url, None).get("/openapi.json").document
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert schema.get("type") == "object", name
