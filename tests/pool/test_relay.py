"""`htlease relay` on a real pool: tokens for jobs that mention nothing, and how jobs ended."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.pool.hooked import HookedSite
from tests.pool.lab import Lab, write_for_job
from tests.pool.relay import RelayProcess, install_shadow_hook
from tests.serving import ServerProcess, exchange

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


@pytest.fixture(scope="module")
def relay(lab: Lab) -> Iterator[RelayProcess]:
    """A relay that every starting job of the pool asks."""
    relay = RelayProcess(lab, "--poll", "1", "--listen", f"{lab.pool.ap_address}:{PROXY_PORT}")
    relay.start()
    install_shadow_hook(lab, relay)
    yield relay
    lab.pool.configure("ap", "relay-test", None)
    relay.stop()


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


# ------------------------------------------------------------ how jobs ended


def test_a_bare_job_that_ended_well_is_complete(lab: Lab, relay: RelayProcess) -> None:
    submit_program(lab, "end-well", BARE, "1 0", 'My.HTLeaseKey = "ends/well"')
    lab.pool.wait_event(lab.pool.work_dir / "end-well/log", 5)
    event = closed(lab, "ends/well", "complete")
    assert "exit code 0" in event["reason"]
    exited = lab.server.events("ends/well", "attempt-exited")
    assert [end["exit_code"] for end in exited] == [0]
    assert lab.server.subjob("ends/well")["phases"][0]["completed_at"]


def test_a_failed_job_is_settled_with_its_exit_code_and_opens_again(
    lab: Lab, relay: RelayProcess
) -> None:
    line = 'My.HTLeaseKey = "ends/badly"'
    submit_program(lab, "end-badly", BARE, "0 3", line)
    event = closed(lab, "ends/badly", "failed")
    assert "exit code 3" in event["reason"]
    submit_program(lab, "end-badly-again", BARE, "0 0", line)
    lab.wait_for(
        lambda: lab.server.subjob("ends/badly")["outcome"] == "complete", "the second job", 60
    )


def test_a_job_that_is_run_again_by_htcondor_is_not_settled(lab: Lab, relay: RelayProcess) -> None:
    """`max_retries` keeps the job in the queue; only its last end counts."""
    program = BARE.replace(
        "sys.exit(int(sys.argv[2]))", "sys.exit(body['evidence']['job_starts'] < 2)"
    )
    line = 'My.HTLeaseKey = "ends/retried"'
    submit_program(lab, "end-retried", program, "3 0", line, "max_retries = 3")
    closed(lab, "ends/retried", "complete")
    assert names_of(lab, "ends/retried").count("subjob-closed") == 1


def test_phases_that_nobody_completed_make_a_good_exit_a_failure(
    lab: Lab, relay: RelayProcess
) -> None:
    submit_program(lab, "end-phases", BARE, "0 0 stage compute", 'My.HTLeaseKey = "ends/phases"')
    event = closed(lab, "ends/phases", "failed")
    assert "not complete: stage, compute" in event["reason"]


def test_a_removed_job_is_cancelled_with_the_reason(lab: Lab, relay: RelayProcess) -> None:
    job, directory = submit_program(lab, "end-rm", BARE, "60 0", 'My.HTLeaseKey = "ends/rm"')
    lab.pool.wait_event(directory / "log", 1)
    wait_granted(lab, "ends/rm")
    lab.pool.hold(job)
    lab.pool.wait_status(job, "held")
    time.sleep(3)  # several looks at the queue
    assert lab.server.subjob("ends/rm")["outcome"] is None
    lab.pool.run(["condor_rm", job, "-reason", "not needed"])
    event = closed(lab, "ends/rm", "cancelled")
    assert event["reason"].startswith("removed-by-user: not needed")


def test_a_removal_by_the_sites_policy_is_no_error_of_the_job(
    lab: Lab, relay: RelayProcess
) -> None:
    """The sentence of HTCondor-CE's default policy."""
    lab.pool.configure(
        "ap",
        "relay-policy",
        """
SYSTEM_PERIODIC_REMOVE = WantsPolicy =?= true && time() - JobCurrentStartDate > 6
SYSTEM_PERIODIC_REMOVE_REASON = strcat("CE job removed by SYSTEM_PERIODIC_REMOVE due to ", "disabled job retries")
""",
    )
    try:
        lines = ('My.HTLeaseKey = "ends/policy"', "+WantsPolicy = true")
        submit_program(lab, "end-policy", BARE, "60 0", *lines)
        wait_granted(lab, "ends/policy")
        event = closed(lab, "ends/policy", "failed")
        assert event["reason"].startswith("removed-by-policy: ")
    finally:
        lab.pool.configure("ap", "relay-policy", None)


def test_ends_are_reported_after_a_crash_and_while_nobody_looked(
    lab: Lab, relay: RelayProcess
) -> None:
    _, directory = submit_program(lab, "end-crash", BARE, "6 0", 'My.HTLeaseKey = "ends/crash"')
    lab.pool.wait_event(directory / "log", 1)
    wait_granted(lab, "ends/crash")
    relay.stop(signal.SIGKILL)
    lab.pool.wait_event(directory / "log", 5)
    lab.server.stop()
    relay.start()
    try:
        lab.wait_for(lambda: "ends of jobs wait" in relay.log.read_text(), "a failed look", 30)
    finally:
        lab.server.start()
    closed(lab, "ends/crash", "complete")
    assert names_of(lab, "ends/crash").count("subjob-closed") == 1


# ------------------------------------------------------------ the way through the access point


def test_a_wrapped_job_reaches_through_the_relay_a_server_it_cannot_reach(
    lab: Lab, relay: RelayProcess, tmp_path: Path
) -> None:
    """This lease server listens on loopback, where no execution point can reach it."""
    hidden = ServerProcess(tmp_path / "hidden")
    hidden.start()
    other = RelayProcess(
        replace(lab, server=hidden), "--listen", f"{lab.pool.ap_address}:{PROXY_PORT + 1}"
    ).beside("hidden")
    other.start()
    try:
        directory = lab.pool.job_directory("through-relay")
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
            f"1.1 {lab.pool.ap_host} (htlease-relay)"
        }
    finally:
        other.stop()
        hidden.stop()


def test_a_schedd_that_hangs_costs_the_proxy_nothing(lab: Lab, relay: RelayProcess) -> None:
    schedd = lab.pool.daemon("condor_schedd", "ap")
    schedd.send(signal.SIGSTOP)
    try:
        url = f"http://{lab.pool.ap_address}:{PROXY_PORT}/healthz"
        for _ in range(8):
            assert exchange(url, None)[0] == 200
            time.sleep(0.5)  # several looks at the queue begin in the meantime
    finally:
        schedd.send(signal.SIGCONT)


# ------------------------------------------------------------ no way at all


@pytest.fixture
def quick_updates(lab: Lab) -> Iterator[None]:
    """What a start says reaches the queue within seconds, not a quarter of an hour."""
    lab.pool.configure("ap", "relay-chirp", "SHADOW_QUEUE_UPDATE_INTERVAL = 3\n")
    yield
    lab.pool.configure("ap", "relay-chirp", None)


CHIRP_PLAN = """
[[phase]]
name = "fetch"
run = ["sh", "-c", "echo fetched"]
restart = "once"
[[phase]]
name = "compute"
run = ["sh", "-c", "cat $HTLEASE_DETAILS; echo half > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS; sleep SECONDS"]
restart = "resume"
"""


def submit_without_path(lab: Lab, name: str, plan: str, *lines: str) -> tuple[str, Path]:
    """Submit a wrapped job that knows no server and no token."""
    directory = lab.pool.job_directory(name)
    write_for_job(directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    write_for_job(directory / "plan.toml", plan.encode())
    further = ("transfer_input_files = plan.toml", "+HTLeaseNoPath = true", *lines)
    text = SMALL.format(
        program="htlease-ep.pyz",
        arguments="run --server chirp: --plan plan.toml",
        lines="\n".join(further),
    )
    return f"{lab.pool.submit(text, cwd=directory)}.0", directory


def phases_of(lab: Lab, key: str) -> list[tuple[str, str, str]]:
    """Return what was told of phases: event, phase, and the way it came."""
    return [
        (event["event"], event["phase"], event["via"])
        for event in history(lab, key)
        if event["event"].startswith("phase-")
    ]


def test_a_job_without_network_has_a_lease_and_its_phases_through_the_queue(
    lab: Lab, relay: RelayProcess, quick_updates: None
) -> None:
    via = f"chirp {lab.pool.ap_host} (htlease-relay)"
    plan = CHIRP_PLAN.replace("SECONDS", "12")
    job, directory = submit_without_path(lab, "chirp-all", plan, 'My.HTLeaseKey = "chirp/all"')
    lab.wait_for(
        lambda: ("phase-entered", "compute", via) in phases_of(lab, "chirp/all"),
        "the second phase to be known while it runs",
        90,
    )
    assert lab.pool.status(job) == "running"
    closed(lab, "chirp/all", "complete")
    assert phases_of(lab, "chirp/all") == [
        ("phase-entered", "fetch", via),
        ("phase-completed", "fetch", via),
        ("phase-entered", "compute", via),
        ("phase-completed", "compute", via),
    ]
    assert lab.server.subjob("chirp/all")["details"] == "half\n"
    assert (directory / "out").read_text().startswith("fetched\n")


def test_a_restart_without_network_goes_on_where_the_first_attempt_was(
    lab: Lab, relay: RelayProcess
) -> None:
    plan = CHIRP_PLAN.replace("SECONDS", "12")
    job, directory = submit_without_path(lab, "chirp-again", plan, 'My.HTLeaseKey = "chirp/again"')
    lab.pool.wait_event(directory / "log", 1)
    time.sleep(5)  # the starter sends what was delayed with its next update
    lab.pool.vacate(job)
    lab.pool.wait_event(directory / "log", 1, count=2)
    closed(lab, "chirp/again", "complete")
    grants = lab.server.events("chirp/again", "lease-acquired")
    assert [grant["fence"] for grant in grants if grant["kind"] == "job"] == [1, 2]
    phases = [(name, phase) for name, phase, _ in phases_of(lab, "chirp/again")]
    assert phases.count(("phase-entered", "fetch")) == 1
    assert phases.count(("phase-entered", "compute")) == 2
    assert "half" in (directory / "out").read_text()


def test_a_start_that_would_overlap_goes_back_to_idle_before_it_begins(
    lab: Lab, relay: RelayProcess
) -> None:
    acquire = {"nonce": "somebody-elses-nonce", "kind": "job", "ttl_seconds": 15}
    lab.server.command("chirp/live", "acquire", **acquire)
    plan = CHIRP_PLAN.replace("SECONDS", "0")
    job, directory = submit_without_path(lab, "chirp-live", plan, 'My.HTLeaseKey = "chirp/live"')
    closed(lab, "chirp/live", "complete")
    assert lab.pool.job_ad(job)["NumShadowStarts"] > 1
    assert lab.pool.job_ad(job)["NumJobStarts"] == 1
    assert not lab.pool.events(directory / "log", 12)


def test_a_bare_job_without_network_is_known_by_its_execution_points_hooks(
    lab: Lab, relay: RelayProcess
) -> None:
    site = HookedSite(lab)
    site.configure(HTLEASE_URL="http+insecure://no-such-host.invalid:1")
    try:
        lines = ('My.HTLeaseKey = "chirp/bare"', "+HTLeaseNoPath = true")
        program = "#!/usr/bin/env python3\nimport time\ntime.sleep(9)\n"
        _, directory = submit_program(lab, "chirp-bare", program, "", *lines)
        lab.pool.wait_event(directory / "log", 5)
        closed(lab, "chirp/bare", "complete")
    finally:
        site.remove()
    via = f"chirp {lab.pool.ap_host} (htlease-relay)"
    assert ("phase-entered", "run", via) in phases_of(lab, "chirp/bare")
    grants = lab.server.events("chirp/bare", "lease-acquired")
    assert [grant["fence"] for grant in grants if grant["kind"] == "job"] == [1]
    assert not lab.pool.events(directory / "log", 12)


def test_an_exclusive_phase_needs_a_live_connection(lab: Lab, relay: RelayProcess) -> None:
    """Here it is the site that has no network, not this job."""
    install_shadow_hook(lab, relay, url="chirp:")
    try:
        plan = '[[phase]]\nname = "push"\nrun = ["touch", "ran"]\nexclusive = true\n'
        lines = ('My.HTLeaseKey = "chirp/excl"', "+HTLeaseNoPath = false")
        job, directory = submit_without_path(lab, "chirp-excl", plan, *lines)
        lab.pool.wait_event(directory / "log", 5)
    finally:
        install_shadow_hook(lab, relay)
    assert lab.pool.job_ad(job)["ExitCode"] == 78
    assert "phase push is exclusive" in (directory / "err").read_text()
    assert not (directory / "ran").exists()
    event = closed(lab, "chirp/excl", "failed")
    assert "exit code 78" in event["reason"]


def test_a_lease_without_network_survives_a_crash_of_the_relay(
    lab: Lab, relay: RelayProcess
) -> None:
    plan = CHIRP_PLAN.replace("SECONDS", "12")
    _, directory = submit_without_path(lab, "chirp-crash", plan, 'My.HTLeaseKey = "chirp/crash"')
    lab.pool.wait_event(directory / "log", 1)
    relay.stop(signal.SIGKILL)
    relay.start()
    closed(lab, "chirp/crash", "complete")
    grants = lab.server.events("chirp/crash", "lease-acquired")
    assert [grant["kind"] for grant in grants] == ["job", "operator"]
    nonces = [path.read_text() for path in (relay.state / "starts").glob("*.json")]
    assert not any("chirp/crash" in text for text in nonces)
