"""`htlease agent` on a real pool: tokens for jobs that mention nothing, and a way to the server."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from tests.pool.agent import AgentProcess, install_shadow_hook
from tests.pool.agent_jobs import PROXY_PORT, SMALL, submit, token_seen
from tests.pool.lab import Lab, write_for_job
from tests.serving import ServerProcess, exchange


def test_a_job_that_names_no_token_gets_one_for_its_own_subjob(
    lab: Lab, agent: AgentProcess
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


def test_a_fresh_operator_token_in_the_file_is_enough(lab: Lab, agent: AgentProcess) -> None:
    old = jwt.decode(agent.token.read_text(), options={"verify_signature": False})["jti"]
    lab.server.ask("POST", "tokens/revoke", {"id": old, "reason": "its successor is there"})
    agent.token.write_text(lab.server.operator_token())
    _, directory = submit(lab, "token-renewed")
    assert token_seen(lab, directory)


def test_the_token_is_in_no_file_and_no_answer_of_htcondor(lab: Lab, agent: AgentProcess) -> None:
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
    assert secret not in agent.log.read_text()


def test_a_constraint_query_is_no_oracle_for_the_token(lab: Lab, agent: AgentProcess) -> None:
    _, directory = submit(lab, "token-oracle", seconds=8)
    lab.pool.wait_event(directory / "log", 1)
    constraint = "_condor_priv_HTLeaseToken =!= undefined"
    asked = lab.pool.run(["condor_q", "-allusers", "-constraint", constraint, "-af", "ClusterId"])
    assert asked.stdout.strip() == ""
    assert token_seen(lab, directory)


def test_a_job_that_opted_out_gets_no_token(lab: Lab, agent: AgentProcess) -> None:
    _, directory = submit(lab, "token-opted-out", "+HTLease = false")
    assert token_seen(lab, directory) is None


def test_a_workflow_of_another_owner_is_refused_and_the_job_held(
    lab: Lab, agent: AgentProcess
) -> None:
    body = {"request_id": "owned", "labels": {"owner": "somebody@else.org", "kind": "nightly"}}
    lab.server.ask("PUT", "workflows/theirs", body)
    job, _ = submit(lab, "token-theirs", 'My.HTLeaseKey = "theirs/a"')
    lab.pool.wait_status(job, "held")
    reason = lab.pool.job_ad(job)["HoldReason"]
    assert "workflow theirs belongs to somebody@else.org" in reason
    assert lab.server.ask("GET", "workflows/theirs")["labels"]["kind"] == "nightly"
    lab.pool.remove(job)


def test_another_users_job_gets_no_answer_from_the_agent(lab: Lab, agent: AgentProcess) -> None:
    """`nobody` asks for a job of the pool's job user, `root` may."""
    job, directory = submit(lab, "token-others", seconds=8)
    lab.pool.wait_event(directory / "log", 1)
    hook = [str(agent.directory / "shadow_prepare_job"), f"--socket={agent.socket}"]
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
def test_with_the_agent_away_the_job_follows_the_policy(
    lab: Lab, agent: AgentProcess, policy: str, status: str
) -> None:
    agent.stop()
    install_shadow_hook(lab, agent, wait_server="1", on_no_server=policy)
    job, _ = submit(lab, f"token-away-{policy}")
    try:
        lab.pool.wait_status(job, status)
        if status == "held":
            assert "htlease agent" in lab.pool.job_ad(job)["HoldReason"]
            lab.pool.remove(job)
    finally:
        agent.start()
        install_shadow_hook(lab, agent)


# ------------------------------------------------------------ the way through the access point


def test_a_wrapped_job_reaches_through_the_agent_a_server_it_cannot_reach(
    lab: Lab, agent: AgentProcess, tmp_path: Path
) -> None:
    """This lease server listens on loopback, where no execution point can reach it."""
    hidden = ServerProcess(tmp_path / "hidden")
    hidden.start()
    other = AgentProcess(
        replace(lab, server=hidden), "--listen", f"{lab.pool.ap_address}:{PROXY_PORT + 1}"
    ).beside("hidden")
    other.start()
    try:
        directory = lab.pool.job_directory("through-agent")
        write_for_job(directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
        token = hidden.token("through")
        write_for_job(directory / "htlease.token", token.encode(), 0o600)
        url = f"http+insecure://{lab.pool.ap_address}:{PROXY_PORT + 1}"
        text = SMALL.format(
            program="htlease-ep.pyz",
            arguments=f"\"run --server {url} --ttl 8 -- sh -c 'sleep 6; exit 4'\"",
            lines='My.HTLeaseKey = "through/a"\ntransfer_input_files = htlease.token',
        )
        job = f"{lab.pool.submit(text, cwd=directory)}.0"
        lab.pool.wait_event(directory / "log", 5)
        assert lab.pool.job_ad(job)["ExitCode"] == 4
        events = hidden.history("through/a")
        assert {event["via"] for event in events if event["event"] == "attempt-exited"} == {
            f"1.1 {lab.pool.ap_host} (htlease-agent)"
        }
    finally:
        other.stop()
        hidden.stop()


def test_a_schedd_that_hangs_costs_the_proxy_nothing(lab: Lab, agent: AgentProcess) -> None:
    schedd = lab.pool.daemon("condor_schedd", "ap")
    schedd.send(signal.SIGSTOP)
    try:
        url = f"http://{lab.pool.ap_address}:{PROXY_PORT}/healthz"
        for _ in range(8):
            assert exchange(url, None)[0] == 200
            time.sleep(0.5)  # several looks at the queue begin in the meantime
    finally:
        schedd.send(signal.SIGCONT)
