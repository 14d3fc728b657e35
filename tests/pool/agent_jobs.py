"""Jobs for a pool whose agent is to be tested, and what the server heard of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pool.lab import Lab, write_for_job
from tests.serving import exchange

#: Acquires as a hook does that is the only one to speak for a job, and ends as it is told.
BARE = r"""#!/usr/bin/env python3
import json, os, re, socket, sys, time, urllib.request
host, port, cookie = open(os.environ["_CONDOR_CHIRP_CONFIG"]).read().split()[:3]
with socket.create_connection((host, int(port))) as connection:
    answers = connection.makefile("rb")
    connection.sendall(f"cookie {cookie}\nget_job_attr _condor_priv_HTLeaseToken\n".encode())
    answers.readline()
    token = answers.read(int(answers.readline())).decode().strip('"')
ad = dict(line.strip().split(" = ", 1) for line in open(os.environ["_CONDOR_JOB_AD"]))
machine = dict(line.strip().split(" = ", 1) for line in open(os.environ["_CONDOR_MACHINE_AD"]))
text = {name: ad[name].strip('"') for name in ("HTLeaseKey", "HTLeaseURL", "GlobalJobId")}
workflow, subjob = text["HTLeaseKey"].split("/")
body = {
    "request_id": os.urandom(8).hex(), "nonce": os.urandom(16).hex(), "ttl_seconds": 300,
    "global_job_id": text["GlobalJobId"],
    "place": {
        "slot": machine["Name"].strip('"'),
        "startd": "#".join(ad["PublicClaimId"].strip('"').split("#")[:2]),
    },
    "evidence": {
        "job_starts": int(ad.get("NumJobStarts", 0)) + 1,
        "shadow_starts": int(ad["NumShadowStarts"]),
    },
}
if len(sys.argv) > 3:
    body["plan"] = {"phases": [{"name": name} for name in sys.argv[3:]]}
url = text["HTLeaseURL"].replace("http+insecure:", "http:")
request = urllib.request.Request(
    f"{url}/v1/workflows/{workflow}/subjobs/{subjob}/acquire",
    data=json.dumps(body).encode(),
    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
)
print(urllib.request.urlopen(request).read())
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""

#: Prints what chirp says of the token, as the execution point's hook will ask for it.
READ_TOKEN = r"""#!/usr/bin/env python3
import json, os, socket, sys, time
host, port, cookie = open(os.environ["_CONDOR_CHIRP_CONFIG"]).read().split()[:3]
with socket.create_connection((host, int(port))) as connection:
    answers = connection.makefile("rb")
    connection.sendall(f"cookie {cookie}\n".encode())
    assert int(answers.readline()) >= 0
    connection.sendall(b"get_job_attr _condor_priv_HTLeaseToken\n")
    size = int(answers.readline())
    print(answers.read(size).decode() if size > 0 else "none")
sys.stdout.flush()
time.sleep(float(sys.argv[1]))
"""

PROXY_PORT = 8621

SMALL = """\
executable = {program}
arguments = {arguments}
should_transfer_files = YES
request_cpus = 1
request_memory = 64
request_disk = 1
output = out
error = err
log = log
{lines}
queue
"""


def submit(lab: Lab, name: str, *lines: str, seconds: float = 0) -> tuple[str, Path]:
    """Submit a job that says which token it sees."""
    return submit_program(lab, name, READ_TOKEN, f"{seconds}", *lines)


def submit_program(
    lab: Lab, name: str, program: str, arguments: str, *lines: str
) -> tuple[str, Path]:
    """Submit a job of one script."""
    directory = lab.pool.job_directory(name)
    write_for_job(directory / "program.py", program.encode(), 0o755)
    text = SMALL.format(lines="\n".join(lines), program="program.py", arguments=arguments)
    return f"{lab.pool.submit(text, cwd=directory)}.0", directory


def history(lab: Lab, key: str) -> list[dict[str, Any]]:
    """Return a subjob's events; none when the server has not heard of it."""
    workflow, subjob = key.split("/")
    path = f"{lab.server.web_url}/v1/workflows/{workflow}/subjobs/{subjob}/history?limit=1000"
    status, document = exchange(path, lab.server.admin_token)
    events: list[dict[str, Any]] = document["events"] if status == 200 else []
    return events


def wait_granted(lab: Lab, key: str) -> None:
    """Wait until a job holds the lease."""
    lab.wait_for(lambda: history(lab, key), f"the lease of {key}", 60)


def closed(lab: Lab, key: str, outcome: str) -> dict[str, Any]:
    """Wait until a subjob is closed, and return the event that closed it."""

    def found() -> list[dict[str, Any]]:
        return [event for event in history(lab, key) if event["event"] == "subjob-closed"]

    event: dict[str, Any] = lab.wait_for(found, f"{key} to be closed", 60)[-1]
    assert event["outcome"] == outcome, event
    return event


def names_of(lab: Lab, key: str) -> list[str]:
    return [event["event"] for event in history(lab, key)]


def token_seen(lab: Lab, directory: Path) -> str | None:
    """Return the token that the job saw through chirp, once it has ended."""
    lab.pool.wait_event(directory / "log", 5)
    text = (directory / "out").read_text().strip()
    assert text, (directory / "err").read_text()
    return json.loads(text) if text.startswith('"') else None
