"""The pyz as `USER_JOB_WRAPPER`: plans of bare jobs, and what a prepare hook has begun."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from tests.process.execution import Sandbox, server_away, wait_for
from tests.serving import ServerProcess

from htlease.execution.sandbox_state import (
    HOOKS_FOLDER,
    SandboxState,
    StartId,
    boot_id,
    write_state,
)

SH = "/bin/sh"
#: Shows what an exec hands on: environment, signals, open files.
LOOK = "env -0 | sort -z; grep '^Sig[PBIC]' /proc/self/status; ls /proc/self/fd; pwd"
WAITS_FOR_TERM = 'trap "echo term > heard; exit 5" TERM; echo on > on; while :; do sleep 0.1; done'


# ------------------------------------------------------------ plans


PHASES = """\
ttl_seconds = 30
[[phase]]
name = "fetch"
run = ["/bin/sh", "-c", "echo fetch"]
restart = "once"
[[phase]]
name = "work"
run = ["/bin/sh", "-c", "echo work; exit 4"]
"""


def test_a_job_may_name_a_plan_that_says_what_runs(job: Sandbox) -> None:
    job.job_ad["HTLeasePlan"] = "plan.toml"
    job.write("plan.toml", PHASES)
    assert job.run(SH, "-c", "touch ran") == 4
    assert job.output == b"fetch\nwork\n"
    assert not (job.path / "ran").exists()
    phases = job.server.subjob(job.key)["phases"]
    assert [(phase["name"], bool(phase["completed_at"])) for phase in phases] == [
        ("fetch", True), ("work", False)
    ]  # fmt: skip


def test_a_job_may_name_a_plan_whose_phases_its_executable_enters(job: Sandbox) -> None:
    job.job_ad["HTLeasePlan"] = "plan.toml"
    job.write("plan.toml", '[[phase]]\nname = "one"\n[[phase]]\nname = "two"\n')
    walk = 'for p in one two; do "$HTLEASE" phase enter $p && "$HTLEASE" phase complete $p; done'
    assert job.run(SH, "-c", walk) == 0
    assert job.output == b"run\nrun\n"
    assert job.server.subjob(job.key)["status"] == "exited"


def test_a_plan_that_cannot_be_read_or_followed_is_an_error_of_the_job(job: Sandbox) -> None:
    """Its executable alone would not be the work that it asked for."""
    job.job_ad["HTLeasePlan"] = "nosuch.toml"
    assert job.run(SH, "-c", "touch ran") == 78
    assert "nosuch.toml" in job.messages
    job.write("nosuch.toml", PHASES)
    server_away(job)
    assert job.run(SH, "-c", "touch ran") == 75
    assert not (job.path / "ran").exists()


# ------------------------------------------------------------ after a prepare hook


def _as_a_hook_leaves_it(job: Sandbox, fence: int, nonce: str) -> None:
    """Write what a prepare hook that is over hands to the processes of the same start."""
    hook = subprocess.Popen(["true"])
    hook.wait()
    start = StartId(
        str(job.job_ad["GlobalJobId"]),
        int(str(job.job_ad["NumJobStarts"])),
        int(str(job.job_ad["NumShadowStarts"])),
        str(job.path),
        boot_id(),
    )
    folder = job.path / HOOKS_FOLDER
    folder.mkdir(mode=0o700)
    (job.path / "htlease.token").rename(folder / "token")
    write_state(
        folder, SandboxState(start, 1, nonce, job.key, hook.pid, 1, job.server.url, fence, 1)
    )


def _acquired_by_a_hook(job: Sandbox) -> str:
    nonce = "h" * 48
    answer = job.server.command(
        job.key,
        "acquire",
        kind="job",
        nonce=nonce,
        ttl_seconds=300,
        global_job_id=job.job_ad["GlobalJobId"],
        evidence={"job_starts": 1, "shadow_starts": 1},
    )
    _as_a_hook_leaves_it(job, answer["fence"], nonce)
    return nonce


def test_the_lease_that_a_prepare_hook_acquired_is_the_wrappers(job: Sandbox) -> None:
    nonce = _acquired_by_a_hook(job)
    assert job.run(SH, "-c", "cat .htlease.json; exit 2") == 2
    assert nonce.encode() in job.output
    assert not (job.path / ".htlease.json").exists()
    document = job.server.subjob(job.key)
    assert (document["fence"], document["status"], document["exit_code"]) == (1, "exited", 2)
    assert len(document["attempts"]) == 1
    assert job.messages == ""


def test_after_a_prepare_hook_the_wrapper_still_brings_its_plan(job: Sandbox) -> None:
    _acquired_by_a_hook(job)
    job.job_ad["HTLeasePlan"] = "plan.toml"
    job.write("plan.toml", PHASES)
    assert job.run(SH, "-c", "touch ran") == 4
    document = job.server.subjob(job.key)
    assert document["fence"] == 1
    assert [phase["name"] for phase in document["phases"]] == ["fetch", "work"]
    assert [event["phase"] for event in job.server.events(job.key, "phase-entered")] == [
        "fetch", "work"
    ]  # fmt: skip


def test_what_a_hook_left_stays_when_the_wrapper_finds_no_server(job: Sandbox) -> None:
    """The hooks of this start go on renewing by it."""
    _acquired_by_a_hook(job)
    before = job.read(".htlease-hooks/.htlease.json")
    server_away(job)
    assert job.run(SH, "-c", "test ! -e .htlease.json && exit 7") == 7
    assert job.read(".htlease-hooks/.htlease.json") == before


def test_hooks_hear_that_a_wrapper_is_there_before_it_has_an_answer(
    job: Sandbox, own_server: ServerProcess
) -> None:
    """Else UPDATE_JOB_INFO could enter the one phase that the wrapper's plan does not have."""
    nonce = _acquired_by_a_hook(job)
    job.environ.update(HTLEASE_URL=own_server.url, HTLEASE_WAIT_SERVER="60")
    own_server.signal(signal.SIGSTOP)
    process = job.start(SH, "-c", "true")
    state = json.loads(job.wait_text(".htlease.json"))
    assert (state["nonce"], state["pid"]) == (nonce, process.pid)
    own_server.signal(signal.SIGCONT)
    process.wait(60)


def test_a_plan_that_comes_too_late_waits_for_the_next_start(job: Sandbox) -> None:
    nonce = _acquired_by_a_hook(job)
    job.server.command(job.key, "phases/run/enter", fence=1, nonce=nonce)
    job.job_ad["HTLeasePlan"] = "plan.toml"
    job.write("plan.toml", PHASES)
    assert job.run(SH, "-c", "touch ran") == 75
    assert "a hook of this start has entered run" in job.messages
    assert job.server.subjob(job.key)["status"] == "abandoned"


def test_a_checkpointed_job_goes_on_under_the_same_fence(job: Sandbox) -> None:
    job.job_ad["SuccessCheckpointExitCode"] = 85
    payload = "if test -e done; then exit 0; fi; touch done; exit 85"
    assert job.run(SH, "-c", payload) == 85
    wait_for(lambda: job.server.subjob(job.key)["status"] == "active", "the lease to be kept")
    assert job.run(SH, "-c", payload) == 0
    document = job.server.subjob(job.key)
    assert (document["fence"], document["status"]) == (1, "exited")


def test_two_attempts_in_one_shared_directory_keep_apart(job: Sandbox) -> None:
    """A sandbox on a shared file system: no file is a lock, and names carry the attempt."""
    job.environ["HTLEASE_TTL"] = "4"
    work = (
        'echo "$HTLEASE_FENCE" > "$HTLEASE_OUTPUT_PREFIX.out"; '
        'echo "$HTLEASE_FENCE" > "$HTLEASE_DETAILS.new"; mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"; '
    )
    calls = '"$HTLEASE" details "$HTLEASE_DETAILS"; echo $? > call-of-$HTLEASE_FENCE; '
    waits = "while ! test -e go-$HTLEASE_FENCE; do sleep 0.1; done; "
    first = job.start(SH, "-c", work + "touch on; " + waits + calls, stdout=subprocess.DEVNULL)
    wait_for(lambda: (job.path / "on").exists(), "the first attempt")
    # Seen from a second machine the first attempt's process is not there, and the boot another.
    os.kill(first.pid, signal.SIGSTOP)
    state = json.loads(job.read(".htlease.json"))
    state["start"]["boot_id"], state["pid"], state["pid_started"] = "another-boot", 1, 1
    job.write(".htlease.json", json.dumps(state), 0o600)

    job.job_ad.update(NumJobStarts=1, NumShadowStarts=2)
    second = job.start(SH, "-c", work + waits + calls, stdout=subprocess.DEVNULL)
    job.wait_text("attempt-2-fence-2.out", "2")
    assert json.loads(job.read(".htlease.json"))["nonce"] == state["nonce"]
    (job.path / "go-1").touch()
    assert job.wait_text("call-of-1", "\n") == "76\n", "the first attempt cannot use the second's"
    (job.path / "go-2").touch()
    assert second.wait(60) == 0
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(60) == 76
    assert job.read("call-of-2") == "0\n"
    assert job.read("attempt-1-fence-1.out") == "1\n"
    assert job.server.subjob(job.key)["details"] == "2\n"
