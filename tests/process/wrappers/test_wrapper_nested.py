"""A wrapper inside the payload of another one for the same subjob: one lease, one record."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest
from tests.process.execution import Sandbox, wait_for
from tests.serving import ServerProcess

NewSandbox = Callable[..., Sandbox]
SH = "/bin/sh"
PLAN = """\
[[phase]]
name = "fetch"
run = ["/bin/sh", "-c", "echo fetch $HTLEASE_FENCE"]
restart = "once"
[[phase]]
name = "work"
run = ["/bin/sh", "-c", "echo work $HTLEASE_FENCE; exec ./work"]
restart = "redo"
"""


@pytest.fixture(params=["run", "site"])
def job(request: pytest.FixtureRequest, new_sandbox: NewSandbox, server: ServerProcess) -> Sandbox:
    """A job whose script calls the wrapper, below one of the submit file or of the site."""
    box = new_sandbox(server)
    box.call = ("run", "--") if request.param == "run" else ()
    box.write("plan.toml", PLAN)
    box.script("work", "true")
    return box


def _inner(job: Sandbox, arguments: str) -> str:
    return f"{job.pyz} run {arguments}"


def _grants(job: Sandbox) -> list[int]:
    return [event["fence"] for event in job.server.events(job.key, "lease-acquired")]


def test_without_a_plan_the_inner_one_becomes_its_command(job: Sandbox) -> None:
    show = "--wait-lease 0 -- sh -c 'cat /proc/$PPID/comm; echo $HTLEASE_PHASE; exit 9'"
    assert job.run(SH, "-c", f"{_inner(job, show)}; echo $?; exit 4") == 4
    assert job.output == b"sh\nrun\n9\n"
    assert _grants(job) == [1]
    assert job.messages == ""


def test_an_environment_without_our_variables_changes_nothing(job: Sandbox) -> None:
    bare = "env -i PATH=$PATH _CONDOR_SCRATCH_DIR=$_CONDOR_SCRATCH_DIR HTLEASE_URL=$HTLEASE_URL "
    inner = _inner(job, f"--key {job.key} --wait-lease 0 -- echo inside")
    assert job.run(SH, "-c", bare + inner) == 0
    assert job.output == b"inside\n"
    assert _grants(job) == [1]


def test_a_subjob_of_its_own_has_a_lease_of_its_own(job: Sandbox) -> None:
    inner = _inner(job, f"--key {job.key}-inner -- sh -c 'echo $HTLEASE_KEY'")
    assert job.run(SH, "-c", f"{inner}; echo $HTLEASE_KEY") == 0
    assert job.output.decode() == f"{job.key}-inner\n{job.key}\n"
    assert job.server.subjob(f"{job.key}-inner")["status"] == "exited"
    assert _grants(job) == [1]


def test_the_inner_ones_plan_is_walked_and_recorded(job: Sandbox) -> None:
    job.environ["HTLEASE_TTL"] = "4"
    after = "sleep 3"  # long enough for the outer one to hear that its lease is over
    assert job.run(SH, "-c", f"{_inner(job, '--plan plan.toml')} && {after} && exit 6") == 6
    assert job.output == b"fetch 2\nwork 2\n"
    document = job.server.subjob(job.key)
    assert (document["status"], document["exit_code"]) == ("exited", 0)
    assert [phase["name"] for phase in document["phases"]][-2:] == ["fetch", "work"]
    assert document["attempt_number"] == 1, "it is one start of the job"
    assert _grants(job) == [1, 2]
    assert job.server.events(job.key, "write-refused") == []
    assert job.messages == ""
    assert not [path.name for path in job.path.iterdir() if path.name.startswith(".htlease")]


def test_two_plans_one_after_the_other_are_both_walked(job: Sandbox) -> None:
    inner = _inner(job, "--plan plan.toml")
    other = _inner(job, "--phase-name third -- echo third")
    assert job.run(SH, "-c", f"{inner} && {other}") == 0
    assert job.output == b"fetch 2\nwork 2\nthird\n"
    assert _grants(job) == [1, 2, 3]


def test_a_restart_goes_on_in_the_inner_ones_plan(
    job: Sandbox, new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    job.script("work", 'trap "exit 5" TERM; echo on > on; while :; do sleep 0.1; done')
    script = f"trap 'kill -TERM $!; wait $!; exit $?' TERM; {_inner(job, '--plan plan.toml')} & "
    process = job.start(SH, "-c", script + "wait $!")
    job.wait_text("on", "\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 5
    wait_for(lambda: server.subjob(job.key)["status"] == "abandoned", "the lease to be given up")

    again = new_sandbox(server, job_starts=1, shadow_starts=2, slot=2, key=job.key)
    again.call = job.call
    again.write("plan.toml", PLAN)
    again.script("work", "true")
    assert again.run(SH, "-c", _inner(again, "--plan plan.toml")) == 0
    assert again.output == b"work 4\n", "what was done once is not done again"
    assert server.subjob(job.key)["attempt_number"] == 2


def test_when_a_later_start_takes_the_lease_the_inner_payload_is_ended(
    job: Sandbox, new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    job.script("work", 'trap "exit 5" TERM; echo on > on; while :; do sleep 0.1; done')
    process = job.start(SH, "-c", f"{_inner(job, '--ttl 4 --plan plan.toml')}; exit $?")
    job.wait_text("on", "\n")
    again = new_sandbox(server, job_starts=1, shadow_starts=2, slot=2, key=job.key)
    assert again.run("--", "true") == 0
    assert process.wait(60) == 76
    assert _grants(job) == [1, 2, 3]


def test_when_the_outer_lease_is_lost_while_nothing_was_handed_over_the_payload_is_ended(
    job: Sandbox, new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    if job.call:
        job.call = ("run", "--ttl", "4", "--")
    job.environ["HTLEASE_TTL"] = "4"
    wait = "-- sh -c 'echo on > on; while :; do sleep 0.1; done'"
    process = job.start(SH, "-c", _inner(job, wait))
    job.wait_text("on", "\n")
    again = new_sandbox(server, job_starts=1, shadow_starts=2, slot=2, key=job.key)
    assert again.run("--", "true") == 0
    assert process.wait(60) == 76


def test_a_plan_within_a_plan_needs_a_key_of_its_own(job: Sandbox) -> None:
    job.write("outer.toml", f'[[phase]]\nname = "a"\nrun = ["sh", "-c", "{_inner(job, _IN)}"]\n')
    job.call = ("run", "--plan", "outer.toml")
    assert job.run() == 78
    assert "walks a plan for" in job.messages and "--key WORKFLOW/SUBJOB" in job.messages
    assert _grants(job) == [1]


_IN = "--plan plan.toml"


def test_without_a_server_the_inner_plan_waits_no_longer_than_it_was_told(
    job: Sandbox, own_server: ServerProcess
) -> None:
    job.environ["HTLEASE_URL"] = own_server.url
    job.write("htlease.token", own_server.admin_token)
    inner = _inner(job, "--wait-server 0 --plan plan.toml")
    process = job.start(
        SH, "-c", f"echo on > on; read x; {inner}; echo $? > code", stdin=subprocess.PIPE
    )
    job.wait_text("on", "\n")
    own_server.stop()
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    assert job.wait_text("code", "\n") == "75\n"
    own_server.start()
    assert process.wait(60) == 0
    assert [event["fence"] for event in own_server.events(job.key, "attempt-exited")] == [1]


def test_a_job_that_the_payload_submits_has_nothing_of_its_parents(
    new_sandbox: Callable[..., Sandbox], sandbox: Sandbox
) -> None:
    """As with `getenv = true`: the child's environment is the parent payload's, and HTCondor's."""
    parent = sandbox.start(
        "--",
        sandbox.script("p", "env > env; echo > on; while [ ! -e go ]; do sleep 0.05; done; exit 4"),
    )
    sandbox.wait_text("on", "\n")
    handed_on = dict(line.split("=", 1) for line in sandbox.read("env").splitlines())
    for number, key in enumerate(["tests/child-of-its-own", None]):
        child = new_sandbox(sandbox.server)
        child.job_ad |= {"GlobalJobId": f"ap1.test#43.{number}#1795225999", "HTLeaseKey": child.key}
        child.environ = handed_on | {
            name: value for name, value in child.environ.items() if name.startswith("_CONDOR")
        }
        if key:
            child.environ["HTLEASE_KEY"] = key
        assert (
            child.run(
                "--wait-lease",
                "0",
                "--",
                "sh",
                "-c",
                'test "$HTLEASE_KEY" = "$1"; exit $?',
                "sh",
                key or child.key,
            )
            == 0
        ), child.messages
        assert len(child.server.subjob(key or child.key)["attempts"]) == 1
    call = new_sandbox(sandbox.server)  # of a job that knows nothing of us, but has the variables
    call.job_ad["GlobalJobId"] = "ap1.test#44.0#1795225999"
    call.environ = handed_on | {
        "_CONDOR_SCRATCH_DIR": str(call.path),
        "_CONDOR_JOB_AD": str(call.path / ".job.ad"),
    }
    call.call = ("phase",)
    assert call.run("complete", "run") == 78
    (sandbox.path / "go").touch()
    assert parent.wait(60) == 4
    (attempt,) = sandbox.server.subjob(sandbox.key)["attempts"]
    assert attempt["exit_code"] == 4


_OF_PIDS = ("unshare", "--pid", "--fork", "--mount-proc")
#: Where every process seems to have begun a day later.
_OF_TIME = ("unshare", "--time", "--fork", "--boottime", "86400", "--monotonic", "86400", "--")


def _can(namespace: tuple[str, ...]) -> bool:
    done = subprocess.run([*namespace, "true"], check=False, capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize(
    "namespace",
    [
        pytest.param(
            namespace, id=name, marks=pytest.mark.skipif(not _can(namespace), reason="no such here")
        )
        for name, namespace in (("pids", _OF_PIDS), ("time", _OF_TIME))
    ],
)
@pytest.mark.parametrize("plan", ["", "--plan plan.toml"])
def test_a_wrapper_in_a_container_sees_the_one_outside(
    job: Sandbox, plan: str, namespace: tuple[str, ...]
) -> None:
    """As with singularity --pid: the outer wrapper is no ancestor that could be seen."""
    inner = _inner(job, f"--wait-lease 0 {plan or '-- sh -c true'}")
    assert job.run(SH, "-c", f"{' '.join(namespace)} {inner}; echo $?; exit 4") == 4
    assert job.output.endswith(b"\n0\n") or job.output == b"0\n", job.messages
    assert _grants(job) == ([1, 2] if plan else [1]), job.messages
