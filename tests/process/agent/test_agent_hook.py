"""The shadow's hook as HTCondor calls it, with agents that misbehave: never a failure of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

AD = 'ClusterId = 7\nProcId = 0\nGlobalJobId = "ap#7.0#1795225431"\nHTLeaseKey = "wf/a"\n'
TOKEN = "a-token-that-nobody-else-may-see"


def http(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def problem(status: int, code: str, **more: str) -> bytes:
    return http(status, {"status": status, "code": code, "detail": f"it is {code}", **more})


@pytest.fixture
def hook(tmp_path: Path, pyz: Path) -> Path:
    link = tmp_path / "shadow_prepare_job"
    link.symlink_to(pyz)
    return link


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes | None], Path]]:
    """Make an agent that gives one answer to everybody; None: it never says anything."""
    made: list[socket.socket] = []

    def new(answer: bytes | None) -> Path:
        path = tmp_path / f"agent{len(made)}.sock"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen()
        made.append(listening)
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                if answer is None:
                    kept.append(connection)
                    continue
                request = part = connection.recv(65536)
                while part and not request.endswith(b"}"):  # the body comes after the head
                    part = connection.recv(65536)
                    request += part
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield new
    for listening in made:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def call(
    hook: Path, agent: Path, *options: str, ad: str = AD, seconds: str = "1"
) -> subprocess.CompletedProcess[str]:
    waits = (f"--wait-server={seconds}", "--wait-flag=0")
    command = [str(hook), f"--socket={agent}", "--url=http://s", *waits]
    return subprocess.run(
        [*command, *options],
        input=ad,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )


def test_it_prints_token_and_url_and_nothing_else(
    hook: Path, answering: Callable[[bytes | None], Path]
) -> None:
    done = call(hook, answering(http(200, {"token": TOKEN})))
    assert done.stdout == (f'_condor_priv_HTLeaseToken = "{TOKEN}"\nHTLeaseURL = "http://s"\n')
    assert (done.returncode, done.stderr) == (0, "")


def test_a_job_without_a_lease_starts_as_ever(
    hook: Path, answering: Callable[[bytes | None], Path]
) -> None:
    done = call(hook, answering(http(200, {})))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_job_that_opted_out_is_not_even_asked_for(hook: Path, tmp_path: Path) -> None:
    done = call(hook, tmp_path / "nobody", "--on-no-server=hold", ad=AD + "HTLease = false\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


AWAY = {
    "hangs": None,
    "hangs up": b"",
    "garbage": b"\x00\xff" * 1000,
    "no document": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[1] ",
    "cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{",
    "overloaded": problem(503, "overloaded"),
    "its token is refused": problem(401, "unauthorized"),
    "in trouble": problem(500, "internal"),
}


@pytest.mark.parametrize("what", [*AWAY, "absent"])
def test_without_an_answer_the_job_starts_under_the_policy_run(
    hook: Path, answering: Callable[[bytes | None], Path], tmp_path: Path, what: str
) -> None:
    agent = tmp_path / "absent" if what == "absent" else answering(AWAY[what])
    done = call(hook, agent)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("htlease: the job starts without a token")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("policy", "code"), [("hold", 173), ("idle", 602)])
def test_the_other_policies_say_what_becomes_of_the_job(
    hook: Path, tmp_path: Path, policy: str, code: int
) -> None:
    done = call(hook, tmp_path / "absent", f"--on-no-server={policy}")
    assert f"HookStatusCode = {code}\n" in done.stdout
    assert "htlease agent" in done.stdout
    assert done.returncode == code % 100


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(403, "forbidden"), 172),
        (problem(400, "invalid"), 171),
        (problem(409, "lease-still-live"), 601),
        (problem(409, "blocked"), 604),
        (problem(410, "superseded-attempt"), 174),
        (problem(409, "subjob-closed", outcome="failed"), 175),
        (problem(409, "subjob-closed", outcome="complete"), 176),
    ],
)
def test_what_is_said_of_the_job_itself_is_its_hook_status(
    hook: Path, answering: Callable[[bytes | None], Path], answer: bytes, code: int
) -> None:
    done = call(hook, answering(answer))
    assert f"HookStatusCode = {code}\n" in done.stdout
    assert 'HookStatusMessage = "' in done.stdout
    assert done.returncode == (code % 100 or 100)


@pytest.mark.parametrize(
    "option",
    ["--on-no-server=maybe", "--colour=red", "--wait-server=soon", "--wait-flag=x", "plain"],
)
def test_a_configuration_that_is_wrong_holds_the_job_and_is_quoted(
    hook: Path, tmp_path: Path, option: str
) -> None:
    done = call(hook, tmp_path / "absent", option)
    assert "HookStatusCode = 171\n" in done.stdout and option.partition("=")[2] in done.stdout


@pytest.mark.parametrize("ad", ["", "ClusterId = 7\n", "ClusterId = x\nProcId = y\n", "\x00\xff"])
def test_an_ad_that_names_no_job_fails_closed(hook: Path, tmp_path: Path, ad: str) -> None:
    done = call(hook, tmp_path / "absent", ad=ad)
    assert "HookStatusCode = 177\n" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_answer_that_goes_wrong_later_shows_no_token(
    hook: Path, answering: Callable[[bytes | None], Path]
) -> None:
    text = json.dumps({"token": TOKEN})[:-1]
    head = f"HTTP/1.1 200 X\r\nContent-Length: {len(text)}\r\n\r\n"
    done = call(hook, answering(head.encode() + text.encode()))
    assert TOKEN not in done.stdout + done.stderr


def test_the_grant_of_a_start_without_network_comes_with_its_url(
    hook: Path, answering: Callable[[bytes | None], Path]
) -> None:
    done = call(hook, answering(http(200, {"grant": "packed"})))
    assert done.stdout == 'HTLeaseGrant = "packed"\nHTLeaseURL = "chirp:"\n'
