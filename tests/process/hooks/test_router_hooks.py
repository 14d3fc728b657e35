"""The Job Router's hooks as processes from the built pyz, with agents of every bad sort.

A hook that fails, hangs or prints what is no ad blocks its job for ever; the agent itself is tested
with them on a pool.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HOOKS = ("translate_job", "update_job_info", "job_finalize", "job_cleanup")
ROUTE = b'[ Name = "Site"; TargetUniverse = 5 ]\n------\n'
SOURCE = b"""\
ClusterId = 19
Cmd = "/bin/\xff\xc3\xa9 \\"x\\""
GlobalJobId = "ap#19.0#1795225431"
HTLeaseState = "exited"
ProcId = 0
Requirements = strcat("------", B) =!= C
"""
COPY = b"""\
ClusterId = 21
GlobalJobId = "ap#21.0#1795225439"
HTLeaseKey = "run7/s-12"
ProcId = 0
RoutedFromJobId = "19.0"
"""
INPUTS = {
    "translate_job": ROUTE + SOURCE,
    "update_job_info": COPY,
    "job_finalize": SOURCE + b"\n------\n" + COPY,
    "job_cleanup": COPY,
}
#: What an agent does with a connection after it has read the request.
Behaviour = Callable[[socket.socket], None]


def answer(status: int, document: object) -> Behaviour:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} Any\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def give(connection: socket.socket) -> None:
        connection.sendall(head + body)

    return give


def say_nothing(connection: socket.socket) -> None:
    connection.settimeout(60)
    connection.recv(1)  # until the hook gives up


def drip(connection: socket.socket) -> None:
    for _ in range(600):
        connection.sendall(b"H" if _ == 0 else b"T")
        time.sleep(0.1)


BAD_AGENTS: dict[str, Behaviour] = {
    "hangs": say_nothing,
    "sends a byte now and then": drip,
    "hangs up": lambda connection: None,
    "answers nonsense": lambda connection: connection.sendall(b"\x00\xff\r\n\r\n"),
    "answers a list": answer(200, [1]),
    "answers 500": answer(500, {"detail": "it broke"}),
    "answers 403": answer(403, {"code": "forbidden", "detail": "no such job"}),
    "answers odd types": answer(200, {"epoch": "seven", "state": None, "attempt": None}),
}


class StandInAgent:
    """Answers on the socket beside the links, and keeps what it was asked."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._behaviour = behaviour
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            text = b""
            while not text.endswith(b"}"):
                text += connection.recv(65536)
            head, _, body = text.partition(b"\r\n\r\n")
            self.asked.append((head.split()[1].decode(), json.loads(body)))
            try:
                self._behaviour(connection)
            except OSError:
                pass  # the hook has gone

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def site(tmp_path: Path, pyz: Path) -> Path:
    """A directory with the pyz and the router's links."""
    (tmp_path / "htlease-ep.pyz").symlink_to(pyz)
    for hook in HOOKS:
        (tmp_path / f"router_{hook}").symlink_to("htlease-ep.pyz")
    return tmp_path


@contextmanager
def agent_at(site: Path, behaviour: Behaviour) -> Iterator[StandInAgent]:
    agent = StandInAgent(site / "agent.sock", behaviour)
    try:
        yield agent
    finally:
        agent.close()


def run(site: Path, hook: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a hook as the router does: no arguments, status 0 required."""
    # Longer than the hook's own limit by far: only one that hangs meets it.
    return subprocess.run([site / f"router_{hook}"], input=given, capture_output=True, timeout=60)


@pytest.mark.parametrize("behaviour", BAD_AGENTS.values(), ids=BAD_AGENTS.keys())
@pytest.mark.parametrize("hook", HOOKS)
def test_a_bad_agent_blocks_nothing(site: Path, hook: str, behaviour: Behaviour) -> None:
    with agent_at(site, behaviour) as agent:
        done = run(site, hook, INPUTS[hook])
    assert done.returncode == 0, done.stderr
    assert len(agent.asked) == 1
    assert b"Traceback" not in done.stderr
    if hook == "translate_job":
        kept = SOURCE.replace(b'HTLeaseState = "exited"\n', b"")
        assert done.stdout.startswith(kept)
        assert b'\nHTLeaseKey = "ap-19-1795225431/0"\n' in done.stdout
        assert b"HTLeaseRouteGeneration" not in done.stdout


@pytest.mark.parametrize("hook", HOOKS)
def test_no_agent_at_all_blocks_nothing(site: Path, hook: str) -> None:
    done = run(site, hook, INPUTS[hook])
    assert done.returncode == 0, done.stderr
    assert b"agent" in done.stderr
    assert (b"Requirements = strcat" in done.stdout) == (hook == "translate_job")


@pytest.mark.parametrize("given", [b"", b"\n", b"------\n", b"no ad at all", b"\xff\x00 = \n"])
@pytest.mark.parametrize("hook", HOOKS)
def test_odd_input_is_no_failure(site: Path, hook: str, given: bytes) -> None:
    done = run(site, hook, given)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    if hook != "translate_job":
        assert done.stdout == b""


@pytest.mark.parametrize("hook", HOOKS)
def test_a_job_that_opted_out_costs_no_call(site: Path, hook: str) -> None:
    given = INPUTS[hook] + b"HTLease = false\n"
    with agent_at(site, answer(200, {"epoch": 7, "state": "complete"})) as agent:
        done = run(site, hook, given)
    assert done.returncode == 0
    assert agent.asked == []
    assert done.stdout == (SOURCE + b"HTLease = false\n" if hook == "translate_job" else b"")


def test_a_source_gets_key_and_generation(site: Path) -> None:
    with agent_at(site, answer(200, {"epoch": 7})) as agent:
        done = run(site, "translate_job", INPUTS["translate_job"])
    named = {"job": "19.0", "source": "ap#19.0#1795225431", "key": "ap-19-1795225431/0"}
    assert agent.asked == [("/v1/routes/enroll", named)]
    assert done.stdout.decode("latin-1").splitlines()[-4:] == [
        'HTLeaseSource = "ap#19.0#1795225431"',
        'HTLeaseKey = "ap-19-1795225431/0"',
        'HTLeaseStamp = "ap-19-1795225431/0"',
        "HTLeaseRouteGeneration = 7",
    ]
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("more", "is_marked"),
    [
        (b'HTLeaseKey = "ap-19-17/0"\nQDate = 17\n', True),
        (b'HTLeaseKey = "ce-8-16/0"\nHTLeaseStamp = "ce-8-16/0"\n', True),  # a copy of a copy
        (b'HTLeaseKey = "mine/0"\nQDate = 17\n', False),
    ],
)
def test_a_key_that_is_a_stamp_is_marked(site: Path, more: bytes, is_marked: bool) -> None:
    with agent_at(site, answer(200, {"is_to_come": True})):
        done = run(site, "translate_job", INPUTS["translate_job"] + more)
    key = more.partition(b"\n")[0].partition(b"= ")[2]
    assert (b"HTLeaseStamp = " + key in done.stdout) == is_marked
    assert b"HTLeaseRouteGeneration" not in done.stdout


def test_a_copy_whose_token_says_what_it_is_to_be_is_asked_for_again(site: Path) -> None:
    with agent_at(site, answer(200, {"is_to_come": True})):
        assert run(site, "update_job_info", COPY).stdout == b""


def test_a_copy_is_recorded_once(site: Path) -> None:
    with agent_at(site, answer(200, {"epoch": 7})) as agent:
        first = run(site, "update_job_info", COPY)
        assert first.stdout == b'HTLeaseRecorded = "ap#21.0#1795225439"\n'
        again = run(site, "update_job_info", COPY + first.stdout)
        assert again.stdout == b""
        assert len(agent.asked) == 1
        taken = COPY + first.stdout + b'GridJobId = "batch slurm x slurm/20260101/4711"\n'
        run(site, "update_job_info", taken)
    assert [step for step, _ in agent.asked] == ["/v1/routes/record"] * 2
    assert agent.asked[1][1]["grid_job_id"] == "batch slurm x slurm/20260101/4711"


@pytest.mark.parametrize(("spooled", "is_spooled"), [(b"", False), (b"StageInFinish = 17\n", True)])
def test_the_end_is_reported_and_shown(site: Path, spooled: bytes, is_spooled: bool) -> None:
    with agent_at(site, answer(200, {"state": "complete", "attempt": 2, "fence": 3})) as agent:
        done = run(site, "job_finalize", INPUTS["job_finalize"] + spooled)
    assert done.stdout == b'HTLeaseState = "complete"\nHTLeaseAttempt = 2\nHTLeaseFence = 3\n'
    assert [(step, body["is_spooled"]) for step, body in agent.asked] == [
        ("/v1/routes/finalize", is_spooled)
    ]


def test_cleanup_may_be_repeated(site: Path) -> None:
    with agent_at(site, answer(200, {"state": "active"})) as agent:
        outputs = [run(site, "job_cleanup", COPY).stdout for _ in range(2)]
    assert outputs == [b"", b""]
    assert [step for step, _ in agent.asked] == ["/v1/routes/cleanup"] * 2
