"""`htlease relay` on a real pool: tokens for jobs that mention nothing, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.lab import Lab, write_for_job
from tests.pool.relay import RelayProcess, install_shadow_hook

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

SMALL = """\
executable = read_token.py
arguments = {seconds}
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


@pytest.fixture(scope="module")
def relay(lab: Lab) -> Iterator[RelayProcess]:
    """A relay that every starting job of the pool asks."""
    relay = RelayProcess(lab)
    relay.start()
    install_shadow_hook(lab, relay)
    yield relay
    lab.pool.configure("ap", "relay-test", None)
    relay.stop()


def submit(lab: Lab, name: str, *lines: str, seconds: float = 0) -> tuple[str, Path]:
    """Submit a job that says which token it sees."""
    directory = lab.pool.job_directory(name)
    write_for_job(directory / "read_token.py", READ_TOKEN.encode(), 0o755)
    text = SMALL.format(lines="\n".join(lines), seconds=seconds)
    return f"{lab.pool.submit(text, cwd=directory)}.0", directory


def token_seen(lab: Lab, directory: Path) -> str | None:
    """Return the token that the job saw through chirp, once it has ended."""
    lab.pool.wait_event(directory / "log", 5)
    text = (directory / "out").read_text().strip()
    assert text, (directory / "err").read_text()
    return json.loads(text) if text.startswith('"') else None


def test_a_job_that_names_no_token_gets_one_for_its_own_subjob(
    lab: Lab, relay: RelayProcess
) -> None:
    job, directory = submit(lab, "token-given")
    token = token_seen(lab, directory)
    key = lab.pool.job_ad(job)["HTLeaseKey"]
    assert token
    workflow, subjob = key.split("/")
    body = {"nonce": "0123456789abcdef", "request_id": "r1", "kind": "job"}
    granted = lab.server.ask_as(token, f"workflows/{workflow}/subjobs/{subjob}/acquire", body)
    assert granted[0] == 200
    other = lab.server.ask_as(token, f"workflows/{workflow}/subjobs/other/acquire", body)
    assert (other[0], other[1]["code"]) == (403, "forbidden")


def test_the_token_is_in_no_file_and_no_answer_of_htcondor(lab: Lab, relay: RelayProcess) -> None:
    job, directory = submit(lab, "token-hidden", seconds=8)
    lab.pool.wait_event(directory / "log", 1)
    cluster = job.split(".")[0]
    while_running = lab.pool.run(["condor_q", job, "-l"]).stdout
    token = token_seen(lab, directory)
    assert token and "HTLeaseKey" in while_running
    secret = token.split(".")[2]
    assert secret not in while_running
    assert secret not in lab.pool.run(["condor_history", cluster, "-l"]).stdout
    places = [
        lab.pool.directory / host / part
        for host in ("ap", "ep1", "ep2")
        for part in ("log", "spool")
    ]
    for place in places:
        for path in place.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
    assert secret not in relay.log.read_text()


def test_a_constraint_query_is_no_oracle_for_the_token(lab: Lab, relay: RelayProcess) -> None:
    _, directory = submit(lab, "token-oracle", seconds=8)
    lab.pool.wait_event(directory / "log", 1)
    constraint = "_condor_priv_HTLeaseToken =!= undefined"
    asked = lab.pool.run(["condor_q", "-allusers", "-constraint", constraint, "-af", "ClusterId"])
    assert asked.stdout.strip() == ""
    assert token_seen(lab, directory)


def test_a_job_that_opted_out_gets_no_token(lab: Lab, relay: RelayProcess) -> None:
    _, directory = submit(lab, "token-opted-out", "+HTLease = false")
    assert token_seen(lab, directory) is None


def test_a_workflow_of_another_owner_is_refused_and_the_job_held(
    lab: Lab, relay: RelayProcess
) -> None:
    body = {"request_id": "owned", "labels": {"owner": "somebody@else.org", "kind": "nightly"}}
    lab.server.ask("PUT", "workflows/theirs", body)
    job, _ = submit(lab, "token-theirs", 'My.HTLeaseKey = "theirs/a"')
    lab.pool.wait_status(job, "held")
    reason = lab.pool.job_ad(job)["HoldReason"]
    assert "workflow theirs belongs to somebody@else.org" in reason
    assert lab.server.ask("GET", "workflows/theirs")["labels"]["kind"] == "nightly"
    lab.pool.remove(job)


def test_another_users_job_gets_no_answer_from_the_relay(lab: Lab, relay: RelayProcess) -> None:
    """`nobody` asks for a job of the pool's job user, `root` may."""
    job, directory = submit(lab, "token-others", seconds=8)
    lab.pool.wait_event(directory / "log", 1)
    hook = [str(relay.directory / "shadow_prepare_job"), f"--socket={relay.socket}"]
    ad = "".join(
        f"{name} = {part}\n"
        for name, part in zip(("ClusterId", "ProcId"), job.split("."), strict=True)
    )
    ask = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *hook]
    refused = lab.pool.run(ask, as_root=True, input=ad, check=False)
    assert "HookStatusCode = 172" in refused.stdout and "has no job" in refused.stdout
    assert "Token" not in refused.stdout
    allowed = lab.pool.run(hook, as_root=True, input=ad)
    assert "_condor_priv_HTLeaseToken" in allowed.stdout
    token_seen(lab, directory)


@pytest.mark.parametrize(("policy", "status"), [("run", "completed"), ("hold", "held")])
def test_with_the_relay_away_the_job_follows_the_policy(
    lab: Lab, relay: RelayProcess, policy: str, status: str
) -> None:
    relay.stop()
    install_shadow_hook(lab, relay, wait_server="1", on_no_server=policy)
    job, _ = submit(lab, f"token-away-{policy}")
    try:
        lab.pool.wait_status(job, status)
        if status == "held":
            assert "htlease relay" in lab.pool.job_ad(job)["HoldReason"]
            lab.pool.remove(job)
    finally:
        relay.start()
        install_shadow_hook(lab, relay)
