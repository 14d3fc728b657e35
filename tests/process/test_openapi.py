"""The published OpenAPI document: whatever it allows is taken, whatever it forbids is refused.

schemathesis makes the requests up; `schemathesis.toml` says how many, and `docs/correctness.md`
how to have more. All its checks are on: no 5xx, nothing undocumented, no answer that is not as
the document says, and no way around the token.
"""

from __future__ import annotations

import os
import re
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
    examples = os.environ.get("HTLEASE_FUZZ_EXAMPLES", "8")
    said = _schemathesis(own_server, tmp_path, who, "--max-examples", examples)
    assert "Stateful" in said, said


def test_what_one_call_answers_is_of_use_to_the_next(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    document = Caller(own_server.url, None).get("/openapi.json").document
    calls = [call for path in document["paths"].values() for call in path.values()]
    links = {call["operationId"]: call["responses"]["200"].get("links", {}) for call in calls}
    # Among all calls few steps of a few scenarios would follow a link.
    linked = {name for source, targets in links.items() if targets for name in (source, *targets)}
    said = _schemathesis(
        own_server,
        tmp_path,
        "admin",
        *("--phases", "stateful", "--max-examples", "60"),
        *("--include-operation-id-regex", f"^({'|'.join(linked)})$"),
    )
    found = re.search(r"(\d+) covered / (\d+) selected", said)
    assert found, said
    assert int(found[2]) >= sum(map(len, links.values()))
    assert int(found[1]) >= int(found[2]) / 2, said


def _schemathesis(server: ServerProcess, folder: Path, who: str, *options: str) -> str:
    """Return what schemathesis says of a server that has to pass all its checks."""
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--no-color"),
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", f"{server.url}/openapi.json", "--continue-on-failure"),
            *("--header", f"Authorization: Bearer {CALLERS[who](server)}"),
            *options,
        ],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Caller(server.url, None).get("/readyz").status == 200
    assert "Traceback" not in server.log_text
    return done.stdout


def test_every_schema_of_the_document_is_one(server: ServerProcess) -> None:
    document = Caller(server.url, None).get("/openapi.json").document
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert schema.get("type") == "object", name
        # All members are named, or one too many would pass.
        is_open = "oneOf" in schema or name == "OpenApi"
        assert is_open or schema["additionalProperties"] is False, name
