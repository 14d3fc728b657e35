"""The process that writes for a server: it ends with it, and never writes after it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import termios
import threading
from pathlib import Path

from tests.process.execution import wait_for
from tests.process.wire_call import NONCE, Called, Caller
from tests.serving import ServerProcess

#: System call of Linux 5.6 on every architecture.
_PIDFD_GETFD = 438
PATH = "/v1/workflows/writer/subjobs/s"


def writer_of(server: ServerProcess) -> int:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def post(server: ServerProcess, call: str, **body: object) -> Called:
    return Caller(server.url, server.admin_token).post(f"{PATH}/{call}", nonce=NONCE, **body)


def acquire(server: ServerProcess) -> Called:
    return post(server, "acquire", ttl_seconds=600)


def enter(server: ServerProcess) -> Called:
    return post(server, "phases/run/enter", fence=1)


def test_it_ends_with_its_server_however_that_ends(own_server: ServerProcess) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        writer = writer_of(own_server)
        own_server.stop(number)
        wait_for(lambda pid=writer: is_gone(pid), "the writer to end")  # type: ignore[misc]
        own_server.start()


def test_signals_to_all_processes_of_a_service_leave_it_to_the_server(
    own_server: ServerProcess,
) -> None:
    writer = writer_of(own_server)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        os.kill(writer, number)
    assert acquire(own_server).status == 200
    assert os.getsid(writer) == writer, "Ctrl-C is for the server"


def test_a_server_whose_writer_was_killed_ends_and_says_so(own_server: ServerProcess) -> None:
    """What became of the last batch is not known, so the server starts anew from the disk."""
    assert acquire(own_server).status == 200
    writer = writer_of(own_server)
    os.kill(writer, signal.SIGSTOP)
    answers: list[Called] = []
    entering = threading.Thread(target=lambda: answers.append(enter(own_server)))
    entering.start()
    wait_for(lambda: unread_bytes(writer) > 0, "the batch to be on its way")
    os.kill(writer, signal.SIGKILL)
    entering.join(30)
    assert [answer.code for answer in answers] == ["outcome-unknown"]
    assert "it is not known whether it was done" in answers[0].document["detail"]
    assert own_server.end(0) == 1
    assert "what writes to" in own_server.log_text
    assert "Traceback" not in own_server.log_text
    own_server.start()
    entered = enter(own_server)
    assert entered.status == 200 and entered.document["entries"] == 1


def test_what_a_killed_server_left_to_write_is_refused_once_the_next_one_has_started(
    own_server: ServerProcess,
) -> None:
    """Else a fence that the next one issues again would be on record twice."""
    assert acquire(own_server).status == 200
    orphan = writer_of(own_server)
    os.kill(orphan, signal.SIGSTOP)
    exited = threading.Thread(target=lambda: _try_to_exit(own_server))
    exited.start()
    wait_for(lambda: unread_bytes(orphan) > 0, "the batch to be on its way")
    own_server.stop(signal.SIGKILL)
    exited.join(30)
    own_server.start()
    assert acquire(own_server).document["fence"] == 1, "the same holder"
    os.kill(orphan, signal.SIGCONT)
    wait_for(lambda: is_gone(orphan), "the orphan to end")
    own_server.stop()
    own_server.start()
    names = [event["event"] for event in own_server.history("writer/s")]
    assert "attempt-exited" not in names and names.count("lease-acquired") == 1
    entered = enter(own_server)
    assert entered.status == 200


def _try_to_exit(server: ServerProcess) -> None:
    try:
        post(server, "exited", fence=1)
    except OSError:
        return  # killed before its answer
    raise AssertionError("it was answered without being written")


def unread_bytes(writer: int) -> int:
    """Return how much of the line a stopped writer has not read yet."""
    its_fd = int(Path(f"/proc/{writer}/cmdline").read_text().split("\0")[-2])
    process = os.pidfd_open(writer)
    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, its_fd, 0)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    size = fcntl.ioctl(fd, termios.FIONREAD, struct.pack("i", 0))
    os.close(fd)
    os.close(process)
    return int(struct.unpack("i", size)[0])
