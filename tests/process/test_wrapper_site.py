"""The pyz as `USER_JOB_WRAPPER`: any job runs under a lease, and none is the worse for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.process.execution import Sandbox, wait_for
from tests.process.test_wrapper_exit_status import DEADLY
from tests.serving import ServerProcess

from htlease_wrapper.sandbox import HOOKS_FOLDER, SandboxState, StartId, boot_id, write_state

NewSandbox = Callable[..., Sandbox]
SH = "/bin/sh"
#: Shows what an exec hands on: environment, signals, open files.
LOOK = "env -0 | sort -z; grep '^Sig[PBIC]' /proc/self/status; ls /proc/self/fd; pwd"
WAITS_FOR_TERM = 'trap "echo term > heard; exit 5" TERM; echo on > on; while :; do sleep 0.1; done'


@pytest.fixture
def new_job(new_sandbox: NewSandbox) -> NewSandbox:
    """Make scratch directories of jobs that know nothing of us; their ads carry the key."""

    def new(server: ServerProcess, **start: int) -> Sandbox:
        box = new_sandbox(server, **start)
        box.call = ()
        del box.environ["HTLEASE_KEY"]
        box.job_ad["HTLeaseKey"] = box.key
        box.job_ad["Cmd"] = "/home/somebody/sh"
        return box

    return new


@pytest.fixture
def job(new_job: NewSandbox, server: ServerProcess) -> Sandbox:
    return new_job(server)


def _is_known(box: Sandbox) -> bool:
    workflow, _, subjob = box.key.partition("/")
    found = box.server.ask("GET", f"subjobs?id={subjob}")["subjobs"]
    return any((entry["workflow"], entry["subjob"]) == (workflow, subjob) for entry in found)


def _bare(box: Sandbox, *command: str) -> bytes:
    """Return what a command prints that HTCondor starts without a wrapper."""
    return subprocess.run(command, cwd=box.path, env=box.environ, capture_output=True).stdout


def test_a_job_that_knows_nothing_has_a_lease_and_a_record(job: Sandbox) -> None:
    assert job.run(SH, "-c", 'echo "$HTLEASE_KEY $HTLEASE_PHASE $1"', "x", "a b 'c' \"") == 0
    assert job.output.decode() == f"{job.key} run a b 'c' \"\n"
    document = job.server.subjob(job.key)
    assert (document["status"], document["exit_code"]) == ("exited", 0)
    assert [phase["name"] for phase in document["phases"]] == ["run"]
    assert job.messages == ""
    assert {path.name for path in job.path.iterdir()} == {
        "htlease.token", ".job.ad", ".machine.ad", "stderr"
    }  # fmt: skip


def test_all_256_exit_codes_come_through(new_job: NewSandbox, server: ServerProcess) -> None:
    boxes = [new_job(server) for _ in range(256)]
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda code: boxes[code].run(SH, "-c", f"exit {code}"), range(256)))
    assert seen == list(range(256))
    assert {box.messages for box in boxes} == {""}


def test_death_by_every_signal_comes_through(new_job: NewSandbox, server: ServerProcess) -> None:
    boxes = {number: new_job(server) for number in DEADLY}
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda n: boxes[n].run(SH, "-c", f"kill -{int(n)} $$"), DEADLY))
    assert seen == [-number for number in DEADLY]


def test_the_access_points_attribute_names_the_server(job: Sandbox) -> None:
    job.job_ad["HTLeaseURL"] = job.environ.pop("HTLEASE_URL")
    assert job.run(SH, "-c", "echo $HTLEASE_URL") == 0
    assert job.output.decode().strip() == job.server.url


@pytest.mark.parametrize("source", ["HTLEASE_TTL", "HTLeaseTTL"])
def test_environment_or_ad_say_how_long_the_lease_lasts(job: Sandbox, source: str) -> None:
    if source.isupper():
        job.environ[source] = "7"
    else:
        job.job_ad[source] = 7
    assert job.run(SH, "-c", "true") == 0
    assert job.server.events(job.key, "lease-acquired")[0]["ttl_seconds"] == 7


# ------------------------------------------------------------ passing through


def _opt_out(job: Sandbox) -> None:
    job.job_ad["HTLease"] = False


def _interactive(job: Sandbox) -> None:
    job.job_ad["InteractiveJob"] = True


def _no_server(job: Sandbox) -> None:
    del job.environ["HTLEASE_URL"]


#: What Python ignores for itself, as bits of `SigIgn`; the test run may ignore others.
PYTHONS_OWN = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1


def _ignored(status: bytes) -> int:
    found = re.search(rb"SigIgn:\t([0-9a-f]+)", status)
    assert found is not None
    return int(found[1], 16)


@pytest.mark.parametrize("reason", [_opt_out, _interactive, _no_server])
@pytest.mark.parametrize("python_path", [False, True])
def test_what_is_none_of_ours_runs_as_if_there_were_no_wrapper(
    job: Sandbox, reason: Callable[[Sandbox], None], python_path: bool
) -> None:
    """Environment, signals, descriptors and arguments are those that HTCondor gave."""
    reason(job)
    if python_path:
        (job.path / "signal.py").write_text("raise ImportError('not for the wrapper')")
        job.environ["PYTHONPATH"] = str(job.path)
    assert job.run(SH, "-c", LOOK) == 0
    assert job.output == _bare(job, SH, "-c", LOOK)
    assert _ignored(job.output) & PYTHONS_OWN == 0
    assert job.messages == ""
    assert not _is_known(job)


@pytest.mark.parametrize("ending", ["exit 85", "kill -TERM $$"])
def test_what_passes_through_ends_as_itself(job: Sandbox, ending: str) -> None:
    _opt_out(job)
    assert job.run(SH, "-c", ending) == (85 if "85" in ending else -signal.SIGTERM)


def test_the_server_of_condor_ssh_to_job_is_left_alone(job: Sandbox) -> None:
    sshd = job.script("sshd", "exit 9")
    assert job.run(str(job.path / sshd)) == 9
    assert not _is_known(job)
    job.job_ad["Cmd"] = "/usr/sbin/sshd"  # but not a job that is one
    assert job.run(str(job.path / sshd)) == 9
    assert _is_known(job)


def test_what_the_starter_runs_beside_the_job_is_left_alone(job: Sandbox) -> None:
    process = job.start(SH, "-c", "echo on > on; read x", stdin=subprocess.PIPE)
    job.wait_text("on", "\n")
    assert job.run(SH, "-c", "echo key=$HTLEASE_KEY; exit 4") == 4
    assert job.output == b"key=\n"
    process.communicate(b"\n", timeout=60)
    assert len(job.server.events(job.key, "lease-acquired")) == 1


def test_a_relative_executable_is_the_job_when_the_ad_says_so(job: Sandbox) -> None:
    job.job_ad.update(Cmd="sh", PreserveRelativeExecutable=True, TransferExecutable=False)
    assert job.run("sh", "-c", "exit 6") == 6
    assert job.server.subjob(job.key)["exit_code"] == 6


def test_a_job_that_brings_its_own_wrapper_has_one_lease(job: Sandbox) -> None:
    own = job.path / "any-name.exe"
    shutil.copy(job.pyz, own)
    job.write("plan.toml", '[[phase]]\nname = "only"\nrun = ["sh", "-c", "exit 3"]\n')
    assert job.run(str(own), "run", "--plan", "plan.toml") == 3
    document = job.server.subjob(job.key)
    assert [phase["name"] for phase in document["phases"]] == ["only"]
    assert len(document["attempts"]) == 1
    assert len(job.server.events(job.key, "lease-acquired")) == 1


def test_a_python_that_is_too_old_runs_the_job_and_says_nothing(job: Sandbox) -> None:
    pretend = (
        "import runpy, sys; sys.version_info = (3, 6, 8); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            pretend,
            job.pyz,
            SH,
            "-c",
            "grep SigIgn /proc/self/status; exit 85",
        ],
        env=job.environ,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (85, b"")
    bare = subprocess.run([SH, "-c", "grep SigIgn /proc/self/status"], capture_output=True)
    assert done.stdout == bare.stdout
    assert _ignored(done.stdout) & PYTHONS_OWN == 0


# ------------------------------------------------------------ no lease


def _server_away(job: Sandbox) -> None:
    job.environ.update(HTLEASE_URL="http://127.0.0.1:9", HTLEASE_WAIT_SERVER="0")


def _no_credential(job: Sandbox) -> None:
    job.write("htlease.token", "not-a-token")


def _odd_settings(job: Sandbox) -> None:
    job.environ["HTLEASE_TTL"] = "soon"


def _no_key(job: Sandbox) -> None:
    job.job_ad.update(HTLeaseKey="no slash", GlobalJobId="odd")


NO_LEASE = [_server_away, _no_credential, _odd_settings, _no_key]


@pytest.mark.parametrize("trouble", NO_LEASE)
@pytest.mark.parametrize("policy", [None, "run", "whatever"])
def test_without_a_lease_the_payload_runs_untracked_where_the_site_wants_that(
    job: Sandbox, trouble: Callable[[Sandbox], None], policy: str | None
) -> None:
    trouble(job)
    if policy:
        job.environ["HTLEASE_ON_NO_SERVER"] = policy
    assert job.run(SH, "-c", LOOK + "; exit 7") == 7
    assert job.output == _bare(job, SH, "-c", LOOK)
    assert job.messages.count("the payload runs untracked, nothing of it is recorded") == 1
    assert not _is_known(job)


@pytest.mark.parametrize("trouble", NO_LEASE)
@pytest.mark.parametrize("policy", ["idle", "hold"])
def test_without_a_lease_the_payload_does_not_run_where_the_site_wants_that(
    job: Sandbox, trouble: Callable[[Sandbox], None], policy: str
) -> None:
    trouble(job)
    job.environ["HTLEASE_ON_NO_SERVER"] = policy
    assert job.run(SH, "-c", "touch ran") == (75 if trouble is _server_away else 78)
    assert not (job.path / "ran").exists()
    assert "Traceback" not in job.messages


def test_a_signal_that_comes_while_it_waits_for_the_server_ends_the_job(job: Sandbox) -> None:
    _server_away(job)
    job.environ["HTLEASE_WAIT_SERVER"] = "60"
    process = job.start(SH, "-c", "touch ran")
    job.wait_text("stderr", "waiting up to 60 s")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert not (job.path / "ran").exists()


def test_a_later_start_has_the_lease_and_this_one_must_not_run(
    new_job: NewSandbox, server: ServerProcess
) -> None:
    """The policy for a missing server is none for an attempt that is over."""
    late, first = new_job(server, job_starts=1, shadow_starts=2), new_job(server)
    first.job_ad["HTLeaseKey"] = late.key
    assert late.run(SH, "-c", "exit 1") == 1
    assert first.run(SH, "-c", "touch ran") == 76
    assert not (first.path / "ran").exists()


def test_a_start_waits_for_the_lease_of_an_earlier_one_and_reclaims(
    new_job: NewSandbox, server: ServerProcess
) -> None:
    first, second = new_job(server), new_job(server, job_starts=1, shadow_starts=2, slot=2)
    second.job_ad["HTLeaseKey"] = first.key
    holder = first.start(SH, "-c", WAITS_FOR_TERM)
    first.wait_text("on", "\n")
    newcomer = second.start(SH, "-c", "echo $HTLEASE_FENCE $HTLEASE_ATTEMPT_NUMBER > out")
    second.wait_text("stderr", "waiting up to")
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(60) == 5
    assert first.read("heard") == "term\n"
    assert newcomer.wait(60) == 0
    assert second.read("out") == "2 2\n"


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
    _server_away(job)
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
    _server_away(job)
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
