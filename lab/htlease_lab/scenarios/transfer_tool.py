"""A transfer tool as a site may have one: a command that speaks to the service of the scenarios.

    tool.py URL TOKEN_FILE submit KEY < list of `source TAB destination` lines
    tool.py URL TOKEN_FILE poll|cancel TASK | find KEY

Standard library only: it runs on an access point under whatever Python is there. Exit codes: 0, 1
for a refusal, 77 for a credential that is no good, 69 when the service does not answer.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

EXIT_REFUSED, EXIT_AWAY, EXIT_CREDENTIAL = 1, 69, 77


def main(url: str, token_file: str, verb: str, name: str) -> int:
    """Do one call and return the exit code."""
    token = Path(token_file).read_text().strip()
    try:
        print(_VERBS[verb](lambda *call: _exchange(url, token, *call), name))
    except urllib.error.HTTPError as refused:
        document = json.load(refused)
        print(f"{document['code']}: {document['message']}")
        if refused.code in (401, 403) and document["code"] != "PermissionDenied":
            return EXIT_CREDENTIAL
        return EXIT_AWAY if refused.code >= 500 else EXIT_REFUSED
    except OSError as error:
        print(f"no answer: {error}", file=sys.stderr)
        return EXIT_AWAY
    return 0


def _submit(call: Any, key: str) -> str:
    items = [line.rstrip("\n").split("\t") for line in sys.stdin]
    body = {
        "submission_id": str(uuid.uuid4()),
        "label": key,
        "DATA": [{"source_path": s, "destination_path": d} for s, d in items],
    }
    return f"Task ID: {call('POST', '/transfer', body)['task_id']}"


def _poll(call: Any, task: str) -> str:
    found = call("GET", f"/task/{task}")
    reason = (found["fatal_error"] or {}).get("code", found["nice_status"] or "")
    return f"{found['status']} {reason}".strip()


def _cancel(call: Any, task: str) -> str:
    return str(call("POST", f"/task/{task}/cancel", {})["code"])


def _find(call: Any, key: str) -> str:
    found = call("GET", f"/task_list?filter=label:{urllib.parse.quote(key)}")["DATA"]
    return "".join(f"Task ID: {task['task_id']}" for task in found[:1])


_VERBS = {"submit": _submit, "poll": _poll, "cancel": _cancel, "find": _find}


def _exchange(url: str, token: str, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{url}/v0.10{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
