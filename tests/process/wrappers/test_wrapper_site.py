"""The pyz as `USER_JOB_WRAPPER`: any job runs under a lease, and none is the worse for it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.process.execution import NewSandbox, Sandbox, server_away
from tests.process.wrappers.test_wrapper_exit_status import DEADLY
from tests.serving import ServerProcess

SH = "/bin/sh"
#: Shows what an exec hands on: environment, signals, open files.
LOOK = "env -0 | sort -z; grep '^Sig[PBIC]' /proc/self/status; ls /proc/self/fd; pwd"
WAITS_FOR_TERM = 'trap "echo term > heard; exit 5" TERM; echo on > on; while :; do sleep 0.1; done'


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
    assert not job.server.knows(job.key)


@pytest.mark.parametrize("ending", ["exit 85", "kill -TERM $$"])
def test_what_passes_through_ends_as_itself(job: Sandbox, ending: str) -> None:
    _opt_out(job)
    assert job.run(SH, "-c", ending) == (85 if "85" in ending else -signal.SIGTERM)


def test_the_server_of_condor_ssh_to_job_is_left_alone(job: Sandbox) -> None:
    sshd = job.script("sshd", "exit 9")
    assert job.run(str(job.path / sshd)) == 9
    assert not job.server.knows(job.key)
    job.job_ad["Cmd"] = "/usr/sbin/sshd"  # but not a job that is one
    assert job.run(str(job.path / sshd)) == 9
    assert job.server.knows(job.key)


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


def _no_credential(job: Sandbox) -> None:
    job.write("htlease.token", "not-a-token")


def _odd_settings(job: Sandbox) -> None:
    job.environ["HTLEASE_TTL"] = "soon"


def _no_key(job: Sandbox) -> None:
    job.job_ad.update(HTLeaseKey="no slash", GlobalJobId="odd")


NO_LEASE = [server_away, _no_credential, _odd_settings, _no_key]


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
    assert not job.server.knows(job.key)


@pytest.mark.parametrize("trouble", NO_LEASE)
@pytest.mark.parametrize("policy", ["idle", "hold"])
def test_without_a_lease_the_payload_does_not_run_where_the_site_wants_that(
    job: Sandbox, trouble: Callable[[Sandbox], None], policy: str
) -> None:
    trouble(job)
    job.environ["HTLEASE_ON_NO_SERVER"] = policy
    assert job.run(SH, "-c", "touch ran") == (75 if trouble is server_away else 78)
    assert not (job.path / "ran").exists()
    assert "Traceback" not in job.messages


def test_a_signal_that_comes_while_it_waits_for_the_server_ends_the_job(job: Sandbox) -> None:
    server_away(job)
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
