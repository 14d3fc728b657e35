"""UPDATE_JOB_INFO and JOB_EXIT as processes: renewing, losing, stopping, and many calls at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.process.execution import marked, wait_for
from tests.process.hooking import SECRETS, VERSIONS, Called, HookedStart
from tests.serving import ServerProcess

NewStart = Callable[..., HookedStart]


@pytest.fixture
def started(new_start: NewStart) -> HookedStart:
    """A start that has the lease."""
    start = new_start()
    assert start.prepare().code == 0
    return start


#: Becomes a program under the mark that a starter with the pid 77 would give it.
_AS_A_CHILD = """\
import os, sys
os.environ["_CONDOR_ANCESTOR_77"] = f"{os.getpid()}:1795244500:{sys.argv[1]}"
os.setsid()
os.execv(sys.argv[2], sys.argv[2:])
"""


class Family:
    """A job's processes below a stand-in for its starter, one of them out of its tree."""

    def __init__(self, start: HookedStart, script: str) -> None:
        self.mark = f"TEST_FAMILY={os.urandom(6).hex()}"
        name, value = self.mark.split("=")
        self.job = subprocess.Popen(
            [sys.executable, "-c", _AS_A_CHILD, "2", "/bin/sh", "-c", script],
            cwd=start.path,
            env={"PATH": os.environ["PATH"], name: value},
        )
        self.start = start

    def processes(self) -> list[int]:
        self.job.poll()
        return marked(self.mark)

    def update(self) -> Called:
        """Call the hook as the starter of this job would: with a mark that names its own pid."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _AS_A_CHILD, "3"),
                str(self.start.hooks.directory / "update_job_info"),
            ],
            cwd=self.start.path,
            env=self.start.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        ad = self.start.ad("running", JobPid=self.job.pid)
        began_at = time.monotonic()
        stdout, stderr = process.communicate(ad.encode(), timeout=60)
        seconds = time.monotonic() - began_at
        return Called(process.returncode, stdout.decode(), stderr.decode(), seconds)

    def kill(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.job.wait(10)


@pytest.fixture
def new_family() -> Iterator[Callable[[HookedStart, str], Family]]:
    made: list[Family] = []

    def new(start: HookedStart, script: str) -> Family:
        made.append(Family(start, script))
        return made[-1]

    yield new
    for family in made:
        family.kill()


NewFamily = Callable[[HookedStart, str], Family]
#: Ignores SIGTERM, and has a child that has left its session and its parent.
STUBBORN = "trap '' TERM; (setsid sh -c 'sleep 300' &) ; sleep 300 & wait; sleep 300"


def renewed(start: HookedStart) -> float:
    """Return how long the lease will last; 0 once it has lapsed."""
    return max(0.0, start.server.subjob(start.key)["expires_in_seconds"] or 0.0)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_update_of_a_running_job_enters_its_phase(
    new_start: NewStart, version: str
) -> None:
    start = new_start(version=version)
    start.prepare()
    assert start.call("update_job_info", start.ad("before-the-start")).status == 0
    assert start.entered() == []
    for _ in range(3):
        called = start.update()
        assert (called.status, called.stdout, called.stderr) == (0, "", "")
    assert start.entered() == [1]


def test_an_update_renews(new_start: NewStart) -> None:
    start = new_start()
    start.options = ["--ttl=3", "--wait-lease=2", "--wait-server=2"]
    start.prepare()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        start.update()
        time.sleep(0.5)
    assert renewed(start) > 0, "longer than the lease lasts, and still live"
    assert len(start.events("lease-acquired")) == 1


def test_an_update_before_prepare_does_nothing(new_start: NewStart) -> None:
    start = new_start()
    assert start.update().status == 0
    assert not (start.path / ".htlease-hooks").exists()


@pytest.mark.parametrize("what", ["dead process", "exited"])
def test_a_late_update_revives_no_lease(new_start: NewStart, what: str) -> None:
    start = new_start()
    start.options = ["--ttl=1", "--wait-lease=0", "--wait-server=2"]
    start.prepare()
    wait_for(lambda: renewed(start) == 0, "the lease to lapse")
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    if what == "exited":
        start.update(JobState="Exited")
    else:
        start.update(JobPid=gone.pid)
    assert renewed(start) == 0


def test_an_update_after_job_exit_changes_nothing(started: HookedStart) -> None:
    started.update()
    started.exit("exit")
    before = len(started.server.history(started.key))
    called = started.update()
    assert (called.status, called.stderr) == (0, "")
    assert len(started.server.history(started.key)) == before
    assert started.hooks.job_is_alive, "and nothing was stopped for it"


def test_a_superseded_job_is_stopped_with_all_it_started(
    new_start: NewStart, new_family: NewFamily
) -> None:
    start = new_start()
    start.options = ["--ttl=1", "--wait-lease=0", "--wait-server=2"]
    start.prepare()
    family = new_family(start, STUBBORN)
    wait_for(lambda: len(family.processes()) >= 4, "the family")
    newer = new_start(key=start.key, NumShadowStarts=9, GlobalJobId=start.changes["GlobalJobId"])
    newer.options = ["--ttl=30", "--wait-lease=5", "--wait-server=2"]
    assert newer.prepare().code == 0
    called = family.update()
    assert family.processes() == []
    assert "has fence 2; the job is stopped" in called.stderr
    assert called.seconds < 2 + 10 + 5 + 1
    refused = start.events("write-refused")
    assert {event["fence"] for event in refused} == {1}
    assert newer.server.subjob(start.key)["fence"] == 2
    assert renewed(newer) > 0, "the newer start is untouched"


def test_a_stopped_job_that_is_cancelled_hears_of_it(
    started: HookedStart, new_family: NewFamily
) -> None:
    family = new_family(started, "trap 'echo bye > bye; exit' TERM; sleep 300 & wait")
    wait_for(lambda: len(family.processes()) >= 2, "the family")
    family.job.send_signal(signal.SIGSTOP)
    started.server.command(started.key, "cancel")
    family.update()
    assert family.processes() == []
    assert (started.path / "bye").exists(), "it had its chance"


def test_a_recalled_job_is_stopped_and_its_lease_given_up(
    new_start: NewStart, new_family: NewFamily
) -> None:
    start = new_start()
    start.prepare()
    family = new_family(start, "sleep 300")
    wait_for(family.processes, "the family")
    newer = new_start(key=start.key)
    newer.move_to("slot1_2")
    assert newer.prepare().code == 601, "recalled, and still live"
    family.update()
    assert family.processes() == []
    assert [event["fence"] for event in start.events("lease-abandoned")] == [1]
    assert newer.prepare().code == 0


def test_a_job_is_stopped_also_where_nothing_can_be_noted(
    started: HookedStart, new_family: NewFamily
) -> None:
    (started.path / ".htlease-hooks" / "stopped").mkdir()  # no file can take its name
    family = new_family(started, "sleep 300")
    wait_for(family.processes, "the family")
    started.server.command(started.key, "cancel")
    family.update()
    assert family.processes() == []


@pytest.mark.parametrize("comes_first", ["update", "exit"])
def test_the_end_of_a_stopped_job_is_not_its_own(
    new_start: NewStart, new_family: NewFamily, comes_first: str
) -> None:
    """The starter calls JOB_EXIT as soon as the job is dead; the other hook may still be at work."""
    start = new_start()
    start.prepare()
    family = new_family(start, "(trap '' TERM; sleep 300) & trap 'exit 0' TERM; touch up; wait")
    wait_for((start.path / "up").exists, "the family")
    newer = new_start(key=start.key)
    newer.move_to("slot1_2")
    assert newer.prepare().code == 601
    if comes_first == "update":
        family.update()
        start.exit("exit", code="0")
    else:
        with ThreadPoolExecutor(1) as pool:
            update = pool.submit(family.update)  # waits for what the job has left behind
            family.job.wait(30)
            start.exit("exit", code="0")
            assert newer.prepare().code == 0, "what JOB_EXIT gave up is taken"
            family.kill()
            assert update.result().status == 0
    names = ("lease-abandoned", "phase-failed", "phase-completed", "attempt-exited")
    assert [event["event"] for event in start.events(*names)] == ["lease-abandoned"]
    assert start.events("write-refused") == []


def test_a_lease_is_given_up_also_when_the_starter_has_removed_the_sandbox(
    new_start: NewStart, new_family: NewFamily
) -> None:
    """Where JOB_EXIT is not configured, nobody else will do it."""
    start = new_start()
    start.prepare()
    family = new_family(
        start, "trap 'rm -r .htlease-hooks; exit 0' TERM; touch up; sleep 300 & wait"
    )
    wait_for((start.path / "up").exists, "the family")
    newer = new_start(key=start.key)
    newer.move_to("slot1_2")
    assert newer.prepare().code == 601
    family.update()
    assert not (start.path / ".htlease-hooks").exists()
    assert [event["fence"] for event in start.events("lease-abandoned")] == [1]


def test_a_job_whose_server_is_away_is_left_alone(
    new_start: NewStart, own_server: ServerProcess, new_family: NewFamily
) -> None:
    start = new_start(server=own_server)
    start.prepare()
    family = new_family(start, "sleep 300")
    wait_for(family.processes, "the family")
    own_server.signal(signal.SIGSTOP)
    called = family.update()
    assert called.seconds < 2 + 10 + 5
    assert "the server does not answer" in called.stderr
    assert family.processes() != []
    own_server.signal(signal.SIGCONT)
    assert family.update().stderr == ""
    assert start.entered() == [1]


def test_of_updates_that_overlap_one_works_and_the_others_leave(
    new_start: NewStart, own_server: ServerProcess
) -> None:
    start = new_start(server=own_server)
    start.options = ["--wait-server=40"]
    start.prepare()
    own_server.signal(signal.SIGSTOP)
    ad = start.ad("running", JobPid=start.hooks.job.pid).encode()
    first = start.start("update_job_info")
    assert first.stdin is not None
    first.stdin.write(ad)
    first.stdin.close()
    lock = start.path / ".htlease-hooks" / "update.lock"
    wait_for(lock.exists, "the first call to be at work")
    assert start.update().status == 0
    assert first.poll() is None, "another left while the first still hung"
    own_server.signal(signal.SIGCONT)
    assert first.wait(30) == 0
    for stream in (first.stdout, first.stderr):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("why", "code", "wanted"),
    [
        ("exit", "0", ["phase-completed", "attempt-exited"]),
        ("exit", "3", ["phase-failed", "attempt-exited"]),
        ("exit", None, ["phase-failed", "attempt-exited"]),
        ("evict", "143", ["lease-abandoned"]),
        ("remove", None, ["lease-abandoned"]),
        ("hold", "0", ["lease-abandoned"]),
    ],
)
def test_job_exit_records_how_the_job_ended(
    new_start: NewStart, version: str, why: str, code: str | None, wanted: list[str]
) -> None:
    start = new_start(version=version)
    start.prepare()
    start.update()
    called = start.exit(why, "evicted", code)
    assert (called.status, called.stdout) == (0, "")
    names = ("phase-completed", "phase-failed", "attempt-exited", "lease-abandoned")
    assert [event["event"] for event in start.events(*names)] == wanted
    if wanted[-1] == "attempt-exited":
        exited = start.events("attempt-exited")[0]
        assert exited["exit_code"] == (None if code is None else int(code)), "not the ad's 143"


def test_a_wrapper_inherits_the_lease_of_the_hook(started: HookedStart) -> None:
    environ = {
        "PATH": started.environ["PATH"],
        "HTLEASE_URL": started.server.url,
        **{name: value for name, value in started.environ.items() if name.startswith("_CONDOR")},
    }
    done = subprocess.run(
        [
            *(started.hooks.directory / "htlease-ep.pyz", "run", "--phase-name", "compute"),
            *("--", "/bin/sh", "-c", "env; ls -a"),
        ],
        cwd=started.path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "HTLEASE_FENCE=1\n" in done.stdout
    assert [event["fence"] for event in started.events("lease-acquired")] == [1]
    completed = [event["phase"] for event in started.events("phase-completed")]
    assert completed == ["compute"], "the wrapper's own plan"
    called = started.update()
    assert called.stderr == ""
    assert started.events("write-refused") == []
    assert started.hooks.job_is_alive


def test_an_update_leaves_a_living_wrapper_alone(started: HookedStart) -> None:
    environ = {**started.environ, "HTLEASE_URL": started.server.url}
    wrapper = subprocess.Popen(
        [
            *(started.hooks.directory / "htlease-ep.pyz", "run", "--ttl", "4", "--"),
            *("/bin/sh", "-c", "echo up > up; sleep 300"),
        ],
        cwd=started.path,
        env={name: value for name, value in environ.items() if name not in SECRETS},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for((started.path / "up").exists, "the payload")
        started.server.command(started.key, "cancel")
        called = started.update(JobPid=wrapper.pid)
        assert (called.status, called.stderr) == (0, ""), "the wrapper will see to it"
        assert wrapper.wait(60) != 0
    finally:
        wrapper.kill()
        wrapper.wait()
