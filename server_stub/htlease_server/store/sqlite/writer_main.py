"""`python -m htlease_server.store.sqlite.writer_main PATH FILE RUN FD`: writes for a server.

In a thread of the server it would have to win Python's global lock back after each statement from
the event loop, which seldom lets go of it: the two took turns where a machine has cores for both.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from time import perf_counter

from htlease_server import logs
from htlease_server.store.base import Displaced, StoreFailed
from htlease_server.store.sqlite.sqlite_file import FileId
from htlease_server.store.sqlite.sqlite_reader import connected
from htlease_server.store.sqlite.sqlite_writer import SqliteWriter
from htlease_server.store.sqlite.writer_protocol import (
    Kind,
    Outcome,
    framed,
    receive,
    write_set_from,
)

#: Service managers signal all processes of a service; the server is the one that ends this one.
_LEFT_TO_THE_SERVER = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def main() -> int:
    """Write what comes until the socket ends."""
    path, file, run_started_at, fd = sys.argv[1:]
    for number in _LEFT_TO_THE_SERVER:
        signal.signal(number, signal.SIG_IGN)
    logs.configure("text", "warning", None)
    device, inode = map(int, file.split(":"))
    where = Path(path)
    writer = SqliteWriter(connected(where), where, float(run_started_at), FileId(device, inode))
    try:
        with socket.socket(fileno=int(fd)) as connection, connection.makefile("rb") as stream:
            connection.sendall(framed(Outcome()))
            while (body := receive(stream)) is not None:
                connection.sendall(framed(_outcome(writer, body)))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server was killed while it waited
    try:
        writer.close()
    except Displaced:
        # The last connection that is closed would remove the log by its name: another's by now.
        os._exit(1)
    return 0


def _outcome(writer: SqliteWriter, body: bytes) -> Outcome:
    started = perf_counter()
    try:
        writer.write(write_set_from(body))
    except StoreFailed as problem:
        return Outcome(problem=str(problem), kind=Kind.of(problem))
    except Exception as problem:  # a mistake of ours; the next write set may be a better one
        return Outcome(
            problem=f"the batch could not be written: {problem!r}", trace=traceback.format_exc()
        )
    return Outcome(perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
