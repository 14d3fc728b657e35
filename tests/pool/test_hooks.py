"""Jobs that know nothing of htlease, on execution points that have its starter hooks."""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.pool.hooked import HookedSite, wait_fence
from tests.pool.lab import Lab
from tests.pool.test_restarts import FAULTS
from tests.pool.test_zombie import process_is_gone, refused_writes
from tests.serving import ServerProcess

from htlease.wire.protocol import seconds_of

EXECUTING, EVICTED, TERMINATED, HELD, TRANSFER = 1, 4, 5, 12, 40
SHADOW_EXCEPTION = 21
_NUMBERS = itertools.count(1000, 10)


@pytest.fixture(scope="module")
def set_up(lab: Lab) -> Iterator[HookedSite]:
    site = HookedSite(lab)
    site.configure()
    yield site
    site.remove()


@pytest.fixture
def site(set_up: HookedSite) -> Iterator[HookedSite]:
    """Hooks with quick defaults; what a test left in the queue is removed."""
    yield set_up
    pool = set_up.lab.pool
    for ad in [ad for ad in pool.jobs() if ad["JobStatus"] != 3]:
        pool.remove(f"{ad['ClusterId']}.{ad['ProcId']}")
    pool.wait_for(lambda: not pool.jobs(), "an empty queue", 60)


@pytest.fixture
def own(lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    """The lab with a server that the test may stop."""
    server = ServerProcess(tmp_path / "server", lab.pool.ap_address)
    server.start()
    yield replace(lab, server=server, tokens={}, submitted=next(_NUMBERS))
    server.stop()


def test_an_unchanged_job_is_leased_before_its_input_moves_and_renewed(site: HookedSite) -> None:
    job = site.submit("plain", script="sleep 20; echo done", inputs=["input.txt"])
    wait_fence(job, 1)
    started = [
        e for e in job.lab.pool.events(job.log, TRANSFER) if "Started transferring in" in e.text
    ]
    granted_at = job.grants()[0]["at"]
    transfer_at = started[0].time.isoformat(timespec="milliseconds") + "Z"
    assert granted_at < transfer_at, job.explain()
    attempt = job.grants()[0]["attempt_id"]
    assert attempt == f"{job.lab.pool.job_ad(job.job)['GlobalJobId']}@1.1"
    # Longer than the lease lasts unrenewed, it is never free.
    until = seconds_of(granted_at) + 15
    while time.time() < until:
        document = job.subjob()
        assert (document["status"], document["fence"]) == ("active", 1), job.explain()
        assert document["expires_in_seconds"] > 4, "renewed well before its end"
        time.sleep(0.5)
    ad = job.wait_gone()
    assert ad["ExitCode"] == 0
    assert (ad["ChirpHTLeaseAttempt"], ad["ChirpHTLeasePhase"]) == (1, "run")
    assert (job.directory / "out").read_text() == "done\n"
    assert len(job.grants()) == 1
    left = sorted(path.name for path in job.directory.iterdir())
    assert left == ["err", "input.txt", "job.sh", "log", "out"], "nothing of ours came back"


def test_a_token_that_the_user_transfers_is_found_and_stays_where_it_was(site: HookedSite) -> None:
    job = site.submit(
        "token-file",
        'environment = "A=1 B=\'two words\' C=say""hi HTLEASE_KEY=token-file-key/x"',
        script="env > seen",
        token="file",
        key="token-file-key/x",
    )
    ad = job.wait_gone()
    assert ad["ExitCode"] == 0
    assert [grant["fence"] for grant in job.grants()] == [1], job.explain()
    seen = (job.directory / "seen").read_text().splitlines()
    assert {"A=1", "B=two words", 'C=say"hi', "HTLEASE_FENCE=1"} <= set(seen)
    assert "HTLEASE_KEY=token-file-key/x" in seen
    assert "HTLEASE" not in str(ad["Environment"]).replace("HTLEASE_KEY", ""), "it stays local"
    left = sorted(path.name for path in job.directory.iterdir())
    assert left == ["err", "htlease.token", "job.sh", "log", "out", "seen"]


def test_a_restarted_job_reclaims_whatever_ended_the_start_before(site: HookedSite) -> None:
    jobs = {fault: site.submit(f"again-{fault}") for fault in FAULTS}
    for job in jobs.values():
        wait_fence(job, 1)
    for fault, job in jobs.items():
        FAULTS[fault](site.lab, job)
    for fault, job in jobs.items():
        wait_fence(job, 2)
        grants = job.grants()
        assert [grant["fence"] for grant in grants] == [1, 2], job.explain()
        assert [grant["attempt_number"] for grant in grants] == [1, 2], job.explain()
        assert job.subjob()["phases"][0]["entries"] == 2, "the same phase, reclaimed"
        held = job.lab.pool.events(job.log, HELD)
        assert bool(held) == (fault == "hold-release"), job.explain()


def test_an_overlapping_start_waits_as_idle_and_runs_when_the_lease_ends(site: HookedSite) -> None:
    key = "overlap/overlapped"
    holder = {"kind": "operator", "nonce": os.urandom(12).hex(), "ttl_seconds": 25}
    site.lab.server.command(key, "acquire", **holder)
    job = site.submit("overlap", script="true", key=key, inputs=["input.txt"])
    refused = job.lab.pool.wait_event(job.log, SHADOW_EXCEPTION)
    assert "overlap/overlapped: the lease of operator" in refused.text
    assert "is still live" in refused.text
    assert "(reported status 601)" in refused.text
    ad = job.lab.pool.job_ad(job.job)
    assert ad["NumJobStarts"] == 0
    assert not job.lab.pool.events(job.log, TRANSFER), "no input was transferred"
    assert job.wait_gone(90)["ExitCode"] == 0
    assert not job.lab.pool.events(job.log, HELD), job.explain()
    assert len(job.lab.pool.events(job.log, EXECUTING)) == 1
    assert not [e for e in job.history() if e["event"] == "phase-failed"]
    assert [grant["fence"] for grant in job.grants()] == [1, 2]


def test_a_second_submission_of_a_subjob_takes_over_from_the_first(site: HookedSite) -> None:
    """The first is recalled: its hook stops it, so that the two never own it together."""
    first = site.submit("twice")
    wait_fence(first, 1)
    second = site.submit("twice", key=first.key)
    wait_fence(second, 2)
    site.lab.pool.wait_event(first.log, TERMINATED)
    assert [grant["why"] for grant in second.grants()] == ["first", "abandoned"], second.explain()


def test_a_thawed_zombie_is_stopped_by_its_hook_and_cannot_renew(site: HookedSite) -> None:
    """Cut off as well, or HTCondor itself would tell the thawed starter that its claim is over."""
    pool = site.lab.pool
    job = site.submit(
        "zombie", "job_lease_duration = 300", script="(setsid sleep 299 &); sleep 300"
    )
    wait_fence(job, 1)
    detached = [process for process in pool.processes() if process.argv[1:] == ("299",)]
    assert detached
    frozen = pool.freeze(job.job)
    cut = pool.ep_of(frozen[0])
    try:
        pool.cut_network(cut)
        pool.kill_shadow(job.job)
        wait_fence(job, 2)
        if any(process_is_gone(process) for process in frozen):
            pytest.fail("HTCondor killed the frozen starter before it could be thawed")
    finally:
        pool.heal_network(cut)
        for process in frozen:
            if not process_is_gone(process):
                process.send(signal.SIGCONT)
    site.lab.wait_for(lambda: refused_writes(job, 1), "the zombie's renewal to be refused", 60)
    site.lab.wait_for(
        lambda: all(process_is_gone(process) for process in [*frozen[1:], *detached]),
        "the zombie's job to be dead",
        60,
    )
    assert job.subjob()["fence"] == 2
    assert job.subjob()["status"] == "active", "the second start is untouched"


def test_a_cancelled_job_is_stopped_with_all_that_it_started(site: HookedSite) -> None:
    job = site.submit(
        "cancelled", script="trap '' TERM; (setsid sleep 299 &); sleep 300; sleep 299"
    )
    wait_fence(job, 1)
    family = site.lab.pool.family(site.lab.pool.starter(job.job))[1:]
    detached = [p for p in site.lab.pool.processes() if p.argv[1:] == ("299",)]
    assert detached
    site.lab.server.command(job.key, "cancel", reason="not needed any more")
    site.lab.wait_for(
        lambda: all(process_is_gone(process) for process in [*family, *detached]),
        "the cancelled job to be dead",
        60,
    )
    again = site.submit("cancelled", key=job.key)
    held = again.lab.pool.wait_event(again.log, HELD)
    assert "the subjob is cancelled" in held.text
    assert "Subcode 175" in held.text


def complete(lab: Lab, key: str) -> None:
    """Close a subjob as complete before any job works on it."""
    nonce = os.urandom(12).hex()
    lab.server.command(key, "acquire", kind="operator", nonce=nonce, ttl_seconds=60)
    lab.server.command(key, "settle", outcome="complete", fence=1, nonce=nonce)


def test_a_job_whose_subjob_is_complete_ends_well_and_spoils_no_output(site: HookedSite) -> None:
    key = "complete/completed"
    complete(site.lab, key)
    earlier = dict.fromkeys(("out", "err", "result"), "of an earlier attempt\n")
    job = site.submit(
        "complete",
        "transfer_output_files = result",
        script="echo wrong; exit 7",
        key=key,
        earlier=earlier,
    )
    assert job.wait_gone()["ExitCode"] == 0, job.explain()
    for name, text in earlier.items():
        assert (job.directory / name).read_text() == text
    assert len(job.grants()) == 1, "no lease was needed"


def test_a_complete_subjob_ends_well_also_when_the_token_came_with_the_input(
    site: HookedSite,
) -> None:
    key = "complete-late/completed-late"
    complete(site.lab, key)
    job = site.submit("complete-late", script="exit 7", key=key, token="file")
    named = site.submit(
        "complete-late", "transfer_output_files = result", script="exit 7", key=key, token="file"
    )
    assert job.wait_gone()["ExitCode"] == 0, job.explain()
    held = named.lab.pool.wait_event(named.log, HELD)
    assert "complete already; remove this job" in held.text
    assert "Subcode 176" in held.text


def test_jobs_that_opted_out_and_interactive_ones_pass_untouched(site: HookedSite) -> None:
    opted_out = site.submit("opted-out", "+HTLease = False", script="env > seen")
    interactive = site.submit("interactive", "+InteractiveJob = True", script="env > seen")
    for job in (opted_out, interactive):
        assert job.wait_gone()["ExitCode"] == 0
        assert not job.is_known()
        assert "HTLEASE" not in (job.directory / "seen").read_text()


@pytest.mark.parametrize("how", ["dead", "hanging"])
def test_a_job_runs_without_a_server_and_gets_its_lease_when_there_is_one(
    site: HookedSite, own: Lab, how: str
) -> None:
    own.token(f"away-{own.submitted + 1}")  # while there is a server to mint it
    if how == "dead":
        own.server.stop()
    else:
        own.server.signal(signal.SIGSTOP)
    job = site.submit("away", lab=own)
    submitted_at = time.monotonic()
    own.pool.wait_event(job.log, EXECUTING, timeout_seconds=60)
    lost_seconds = time.monotonic() - submitted_at
    print(f"{how}: executing {lost_seconds:.1f} s after submission")
    if how == "dead":
        own.server.start()
    else:
        own.server.signal(signal.SIGCONT)
    wait_fence(job, 1)
    assert own.pool.status(job.job) == "running"
    assert [grant["attempt_number"] for grant in job.grants()] == [1]


def test_a_running_job_does_not_feel_an_outage_and_is_renewed_after_it(
    site: HookedSite, own: Lab
) -> None:
    job = site.submit("outage", lab=own)
    wait_fence(job, 1)
    own.server.stop()
    time.sleep(7)  # two renewals fail
    own.server.start()
    left_seconds = [math.inf]

    def has_risen() -> bool:
        left_seconds.append(job.subjob()["expires_in_seconds"])
        return left_seconds[-1] > left_seconds[-2]

    own.wait_for(has_risen, "a renewal after the outage", 30)
    assert own.pool.status(job.job) == "running"
    assert (job.subjob()["status"], job.subjob()["fence"]) == ("active", 1)


@pytest.mark.parametrize(("policy", "code"), [("idle", 602), ("hold", 173)], ids=["idle", "hold"])
def test_the_site_says_what_becomes_of_a_start_without_a_server(
    site: HookedSite, own: Lab, policy: str, code: int
) -> None:
    workflow = f"policy-{own.submitted + 1}"
    own.token(workflow)  # while there is a server to mint it
    own.server.stop()
    site.configure(HTLEASE_ON_NO_SERVER=policy)
    try:
        job = site.submit("policy", lab=own)
        number = SHADOW_EXCEPTION if policy == "idle" else HELD
        event = own.pool.wait_event(job.log, number)
        assert f"(reported status {code})" in event.text
        assert f"{workflow}/{workflow}:" in event.text
        own.server.start()
        if policy == "hold":
            own.pool.release(job.job)
        wait_fence(job, 1)
    finally:
        site.configure()


def test_a_job_without_a_token_runs_and_one_with_a_wrong_token_is_held(site: HookedSite) -> None:
    job = site.submit("no-token", script="echo ran", token="none")
    site.lab.tokens["wrong-token"] = site.lab.token("of-another-workflow")
    refused = site.submit("wrong", token="file", key="wrong-token/wrong")
    assert job.wait_gone()["ExitCode"] == 0
    assert (job.directory / "out").read_text() == "ran\n"
    held = site.lab.pool.wait_event(refused.log, HELD)
    assert "wrong-token/wrong: the server refuses the token found in" in held.text
    assert "Subcode 172" in held.text
    assert site.lab.tokens["wrong-token"] not in refused.log.read_text()


def test_the_hooks_a_site_had_are_called_with_ours(site: HookedSite) -> None:
    site.program(
        "own-prepare",
        "#!/bin/sh\ncat > own-input\n"
        "if grep -q FailHere own-input; then echo HookStatusCode = 333;"
        " echo 'HookStatusMessage = \"the image is broken\"'; exit 33; fi\n"
        'echo "$@" > own-arguments\necho \'Environment = "OWN=1"\'\n',
    )
    site.configure(
        HTLEASE_CHAIN="OWN",
        OWN_HOOK_PREPARE_JOB=str(site.directory / "own-prepare"),
        OWN_HOOK_PREPARE_JOB_ARGS="--one --two=2",
    )
    try:
        job = site.submit("chained", script="env > seen; cat own-arguments >> seen")
        failing = site.submit("chained-badly", "+FailHere = True")
        assert job.wait_gone()["ExitCode"] == 0, job.explain()
        seen = (job.directory / "seen").read_text().splitlines()
        assert {"OWN=1", "--one --two=2"} <= set(seen)
        assert [grant["fence"] for grant in job.grants()] == [1]
        event = site.lab.pool.wait_event(failing.log, SHADOW_EXCEPTION)
        assert "the image is broken" in event.text
        assert "(reported status 333)" in event.text
    finally:
        site.configure()


def test_no_secret_of_a_daemon_is_written_anywhere(site: HookedSite) -> None:
    job = site.submit("secrets", script="sleep 12")
    wait_fence(job, 1)
    starter = site.lab.pool.starter(job.job)
    environ = Path(f"/proc/{starter.pid}/environ").read_bytes().decode(errors="replace")
    secrets = [
        entry.partition("=")[2]
        for entry in environ.split("\0")
        if entry.startswith(("CONDOR_PRIVATE_INHERIT=", "CONDOR_PRIVATE_SHARED_PORT_COOKIE="))
    ]
    secrets.append(site.lab.token(job.key.split("/")[0]))
    assert all(len(secret) > 10 for secret in secrets)
    assert len(secrets) > 1, "the starter has some"
    job.wait_gone()
    texts = {path.name: path.read_text(errors="replace") for path in site.lab.pool.log_files()}
    texts |= {path.name: path.read_text(errors="replace") for path in job.directory.iterdir()}
    texts["history"] = str(job.history()) + str(job.subjob())
    texts["server"] = site.lab.server.log_text
    found = [name for name, text in texts.items() for secret in secrets if secret in text]
    assert not found


def test_with_our_configuration_a_job_with_files_runs_once(site: HookedSite) -> None:
    job = site.submit("once", script="echo run > result", inputs=["input.txt"])
    assert job.wait_gone()["ExitCode"] == 0
    time.sleep(3)  # what would be started again is started within two
    assert len(job.lab.pool.events(job.log, EXECUTING)) == 1
    assert (job.directory / "result").read_text() == "run\n"


def test_a_job_exit_hook_makes_jobs_with_files_run_for_ever_from_25_4_on(site: HookedSite) -> None:
    """Once HTCondor mends this, the test fails and `execution-point.conf` may have the hook."""
    version = tuple(int(part) for part in site.lab.pool.state()["version"].split(".")[:2])
    site.configure(more=f"HTLEASE_HOOK_JOB_EXIT = {site.directory}/job_exit")
    try:
        job = site.submit("job-exit", script="echo run > result", inputs=["input.txt"])
        if version < (25, 4):
            assert job.wait_gone()["ExitCode"] == 0
            assert len(job.lab.pool.events(job.log, EXECUTING)) == 1
            exited = [e for e in job.history() if e["event"] == "attempt-exited"]
            assert [event["exit_code"] for event in exited] == [0]
        else:
            job.lab.pool.wait_event(job.log, EXECUTING, count=3, timeout_seconds=90)
            assert not job.lab.pool.events(job.log, TERMINATED), "it exited 0 each time"
    finally:
        site.configure()
