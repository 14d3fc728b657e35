"""The pool itself: jobs run with file transfer, and each fault verb does what it says."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from htlease_lab.pool import Pool, PoolError, mending, software
from htlease_lab.pool.cli import main
from htlease_lab.pool.processes import Process

EXECUTING, EVICTED, DISCONNECTED, RECONNECTED = 1, 4, 22, 23

_DESCRIPTION = """
executable = payload.sh
output = out
error = err
log = log
should_transfer_files = YES
when_to_transfer_output = ON_EXIT
request_memory = 64
request_disk = 1
job_lease_duration = 20
"""

_WAITS = "while :; do sleep 1; done"


def _submit(
    pool: Pool, name: str, payload: str, more: str = "", description: str = _DESCRIPTION
) -> tuple[str, Path]:
    directory = pool.job_directory(name)
    (directory / "input").write_text("from the access point\n")
    (directory / "payload.sh").write_text(f"#!/bin/sh\n{payload}\n")
    (directory / "payload.sh").chmod(0o755)
    cluster = pool.submit(f"{description}{more}\nqueue\n", directory)
    return f"{cluster}.0", directory / "log"


@pytest.fixture
def running(pool: Pool, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A running job that never ends by itself, and its event log."""
    job, log = _submit(pool, request.node.name.replace("[", "_").rstrip("]"), _WAITS)
    pool.wait_event(log, EXECUTING)
    yield job, log
    # Not every schedd answers after these tests; what stays is removed with the module's end.
    pool.run(["condor_rm", job], check=False)


def _alive(pool: Pool, process: Process) -> bool:
    return any((p.pid, p.started) == (process.pid, process.started) for p in pool.processes())


@pytest.mark.parametrize("ep", ["ep1", "ep2"])
def test_a_job_runs_with_its_files_transferred(pool: Pool, ep: str) -> None:
    job, log = _submit(
        pool,
        f"transfer_{ep}",
        'hostname; id -un; ls -d "$1" 2>&1; cat input > output',
        f"arguments = {pool.work_dir}/transfer_{ep}/input\n"
        "transfer_input_files = input\n"
        f'requirements = Machine == "{pool.ep_host(ep)}"',
    )
    pool.wait_status(job, "completed")
    host, user, listing = (log.parent / "out").read_text().splitlines()
    assert (host, user) == (pool.ep_host(ep), pool.job_user)
    assert "No such file" in listing, "the execution point sees the access point's files"
    assert (log.parent / "output").read_text() == "from the access point\n"
    assert pool.job_ad(job)["ExitCode"] == 0


def test_a_job_runs_in_the_local_universe(pool: Pool) -> None:
    local = "universe = local\nexecutable = payload.sh\noutput = out\nlog = log\n"
    job, log = _submit(pool, "local_universe", "hostname; exit 3", description=local)
    pool.wait_status(job, "completed")
    assert (log.parent / "out").read_text().strip() == pool.ap_host
    assert pool.job_ad(job)["ExitCode"] == 3


def test_python_bindings_outside_the_pool_act_as_the_job_user(
    pool: Pool, running: tuple[str, Path]
) -> None:
    job, _ = running
    script = (
        "import htcondor2\n"
        "schedd = htcondor2.Schedd()\n"
        f"schedd.act(htcondor2.JobAction.Hold, ['{job}'], reason='from outside')\n"
        f"ad = schedd.query(constraint='ClusterId == {int(float(job))}')[0]\n"
        "print(ad['Owner'], ad['JobStatus'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **pool.client_env()},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [pool.job_user, "5"], done.stderr


@pytest.mark.parametrize("fast", [False, True])
def test_vacate_ends_the_payload_and_the_job_starts_again(
    pool: Pool, running: tuple[str, Path], fast: bool
) -> None:
    job, log = running
    payload = pool.family(pool.starter(job))[1]
    pool.vacate(job, fast=fast)
    pool.wait_event(log, EXECUTING, count=2)
    assert pool.events(log, EVICTED)
    assert not _alive(pool, payload)


def test_hold_stops_a_job_until_it_is_released(pool: Pool, running: tuple[str, Path]) -> None:
    job, log = running
    pool.hold(job)
    pool.wait_status(job, "held")
    pool.release(job)
    pool.wait_event(log, EXECUTING, count=2)


def test_suspend_stops_the_payload_until_continue(pool: Pool, running: tuple[str, Path]) -> None:
    job, log = running
    payload = pool.family(pool.starter(job))[1]
    pool.suspend(job)
    pool.wait_for(lambda: payload.frozen, "the payload to stop")
    pool.wait_status(job, "suspended")
    pool.continue_(job)
    pool.wait_for(lambda: not payload.frozen, "the payload to go on")
    assert len(pool.events(log, EXECUTING)) == 1


def test_a_shadow_killed_right_after_the_start_leads_to_the_same_start_number(
    pool: Pool, running: tuple[str, Path]
) -> None:
    job, log = running
    shadow = pool.shadow(job)
    pool.kill_shadow(job)
    pool.wait_event(log, EXECUTING, count=2)
    assert not _alive(pool, shadow)
    ad = pool.job_ad(job)
    assert (ad["NumJobStarts"], ad["NumShadowStarts"]) == (0, 3)


def test_a_killed_starter_takes_its_payload_along(pool: Pool, running: tuple[str, Path]) -> None:
    job, log = running
    starter, payload, *_ = pool.family(pool.starter(job))
    pool.kill_starter(job)
    pool.wait_event(log, EXECUTING, count=2)
    assert not _alive(pool, starter)
    assert not _alive(pool, payload)


def test_a_killed_startd_is_replaced(pool: Pool, running: tuple[str, Path]) -> None:
    job, log = running
    ep = pool.ep_of(pool.starter(job))
    startd = pool.daemon("condor_startd", ep)
    pool.kill_startd(ep)
    pool.wait_event(log, DISCONNECTED)
    assert not _alive(pool, startd)
    pool.wait_for(
        lambda: [p for p in pool.processes() if (p.program, p.host) == ("condor_startd", ep)],
        f"another startd on {ep}",
    )


@pytest.mark.parametrize("how", ["killed", "killed with the shadow", "restarted"])
def test_the_same_start_goes_on_when_the_schedd_is(
    pool: Pool, running: tuple[str, Path], how: str
) -> None:
    job, log = running
    starter = pool.starter(job)
    shadow = pool.shadow(job)
    if how == "restarted":
        pool.restart_schedd()
    else:
        pool.kill_schedd()
    if how == "killed with the shadow":
        shadow.send(signal.SIGKILL)
    pool.wait_event(log, RECONNECTED)
    assert pool.starter(job) == starter
    assert len(pool.events(log, EXECUTING)) == 1


def test_freeze_stops_starter_and_payload_until_thaw(pool: Pool, running: tuple[str, Path]) -> None:
    job, _ = running
    frozen = pool.freeze(job)
    assert frozen[0].program == "condor_starter"
    assert len(frozen) > 1
    assert all(process.frozen for process in frozen)
    assert pool.thaw(job) == frozen
    assert not any(process.frozen for process in frozen)


class _Counter(socketserver.BaseRequestHandler):
    peers: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.peers.append(self.client_address[0])


def test_a_cut_network_separates_an_execution_point_until_it_is_healed(pool: Pool) -> None:
    with socketserver.TCPServer((pool.ap_address, 0), _Counter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connect = (
            "python3 -c 'import socket, sys, time\n"
            "while True:\n"
            "    try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()\n"
            "    except OSError: pass\n"
            '    time.sleep(0.1)\' "$@"'
        )
        job, log = _submit(
            pool,
            "cut",
            connect,
            f"arguments = {pool.ap_address} {server.server_address[1]}\n"
            f'requirements = Machine == "{pool.ep_host("ep1")}"',
        )
        pool.wait_event(log, EXECUTING)
        pool.wait_for(lambda: len(_Counter.peers) > 2, "connections from the job")
        pool.cut_network("ep1")
        try:
            at_cut = len(_Counter.peers)
            with pytest.raises(PoolError):
                pool.wait_for(lambda: len(_Counter.peers) > at_cut + 1, "more", timeout_seconds=3)
        finally:
            pool.heal_network("ep1")
        healed = len(_Counter.peers)
        pool.wait_for(lambda: len(_Counter.peers) > healed + 2, "connections after the cut")
        pool.remove(job)
        server.shutdown()
    assert set(_Counter.peers) == {pool.network().ep_address("ep1")}
    assert len(pool.events(log, EXECUTING)) == 1


def test_a_fault_for_a_job_that_does_not_run_is_refused_by_name(pool: Pool) -> None:
    for fault in (pool.kill_shadow, pool.kill_starter, pool.freeze, pool.thaw):
        with pytest.raises(PoolError, match=r"Job 9999\.0"):
            fault("9999.0")
    with pytest.raises(PoolError, match="no job 9999"):
        pool.status("9999.0")
    with pytest.raises(PoolError, match="'ep3'"):
        pool.cut_network("ep3")


def test_a_crashed_pool_is_cleared_and_a_second_pool_is_not_touched(
    pool: Pool, running: tuple[str, Path]
) -> None:
    job, _ = running
    other = Pool("crashing")
    other.up()
    try:
        assert other.ap_address != pool.ap_address
        other.submit("executable = /bin/true\ntransfer_executable = false\nqueue\n")
        assert len(other.jobs()) == 1
        other.daemon("condor_master", "ap").send(signal.SIGKILL)
        other.wait_for(lambda: not other.is_up(), "the pool to be seen as crashed")
        other.up()
        assert other.jobs() == []
        assert pool.status(job) == "running"
    finally:
        other.down(purge=True)
    assert not other.directory.exists()
    assert other.processes() == []


def test_a_pool_that_a_test_left_broken_is_mended(pool: Pool, running: tuple[str, Path]) -> None:
    job, _ = running
    frozen = {process.pid for process in pool.freeze(job)}
    schedd = pool.daemon("condor_schedd", "ap")
    schedd.send(signal.SIGSTOP)
    cut = {"ep2"} if pool.network().bridged else set()
    for ep in cut:
        pool.cut_network(ep)
    assert len(mending.faults(pool)) == len(frozen | {schedd.pid}) + len(cut)
    told = mending.mend(pool)
    assert len(told) == len(frozen | {schedd.pid}) + len(cut), told
    assert mending.faults(pool) == []
    assert mending.answers(pool)
    assert mending.mend(pool) == [], "a whole pool is left alone"
    assert job in mending.clear_queue(pool)
    assert pool.jobs() == []


def test_a_pool_whose_daemons_stay_away_is_started_again_and_says_so(pool: Pool) -> None:
    job, _ = _submit(pool, "stays-in-the-queue", _WAITS, "hold = true")
    master = pool.daemon("condor_master", "ap")
    master.send(signal.SIGSTOP)
    for name in ("condor_schedd", "condor_negotiator"):
        pool.kill(pool.daemon(name, "ap"))
    pool.kill(master)
    pool.wait_for(lambda: mending.faults(pool), "the pool to be seen as broken")
    (told,) = mending.mend(pool)
    assert told.startswith(f"pool {pool.name} was started again")
    assert mending.answers(pool)
    assert pool.status(job) == "held", "the queue is kept"


def test_what_has_ended_by_itself_is_killed_well_enough(
    pool: Pool, running: tuple[str, Path]
) -> None:
    job, log = running
    shadow = pool.shadow(job)
    pool.kill(shadow)
    pool.wait_for(lambda: not _alive(pool, shadow), "the end of the shadow")
    pool.kill(shadow)
    pool.wait_event(log, EXECUTING, count=2)


def test_a_directory_above_the_pools_own_can_be_shared(pool: Pool) -> None:
    if pool.state()["software"] == "installed":
        pytest.skip("an installed HTCondor sees all directories")
    above = Pool(f"sharing{os.getpid()}", shared=[pool.directory.parent.parent])
    try:
        above.up()
        _, log = _submit(above, "shared", f"ls -d {above.directory}/*")
        above.wait_event(log, 5)
        seen = (log.parent / "out").read_text().split()
        assert {Path(line).name for line in seen} >= {"ap", "ep1", "ep2"}
    finally:
        above.down(purge=True)


@pytest.mark.parametrize("path", ["/", "/usr", "/no/such/directory", "/etc/passwd"])
def test_what_no_execution_point_can_do_without_is_not_shared(path: str) -> None:
    with pytest.raises(PoolError, match=f"{path} cannot be shared"):
        Pool("sharing", shared=[Path(path)])


def test_without_root_and_htcondor_up_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTLEASE_POOL_DIR", str(tmp_path))
    monkeypatch.delenv("HTLEASE_POOL_SUITE", raising=False)
    monkeypatch.setattr(software, "installed_master", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["up"]) == 1
    said = capfd.readouterr().err
    assert "install HTCondor, or run this command as root" in said
    assert said.count("\n") == 1


def test_the_command_line_runs_tools_and_answers_in_one_sentence(
    pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--name", pool.name]) == 0
    assert pool.ap_address in capfd.readouterr().out
    assert main(["run", "--name", pool.name, "condor_status", "-json"]) == 0
    slots = json.loads(capfd.readouterr().out)
    assert {slot["Machine"] for slot in slots} == {pool.ep_host("ep1"), pool.ep_host("ep2")}
    assert main(["kill", "--name", pool.name, "shadow", "9999.0"]) == 1
    assert capfd.readouterr().err == "htlease: Job 9999.0 has no shadow: it is not running.\n"
    assert main(["status", "--name", "never_started"]) == 1
    assert capfd.readouterr().err.count("\n") == 1
