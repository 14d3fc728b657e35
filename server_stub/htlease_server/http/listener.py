"""The event loop of a server: it takes connections until a signal comes, then answers the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from htlease_server.http.messages import Replier, Request
from htlease_server.http.server import Connection, HttpServer
from htlease_server.logs import note

#: How often connections are looked over, and the service manager gets its sign of life.
TICK_SECONDS = 1.0
_SHUTDOWN_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_HANDSHAKE_SECONDS = 10.0
BACKLOG = 2048
#: Files that are no connections: the store, its readers, logs, certificates.
_OTHER_FILES = 100
#: More than that have no room in memory that a small machine can spare.
CONNECTIONS_MAX = 100_000
CONNECTIONS_FEW = 2_000
#: SIGQUIT is how condor_master stops a daemon quickly.
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Occasions(NamedTuple):
    """What is called, in the event loop, and when."""

    #: Connections are taken, and signals heard, from now on.
    on_ready: Callable[[], None]
    #: SIGHUP, sent by condor_reconfig and `systemctl reload`.
    on_reload: Callable[[], None]
    #: Every TICK_SECONDS, as long as the loop does not hang.
    on_tick: Callable[[], None]


async def listen(
    listener: socket.socket,
    application: Callable[[HttpServer], Callable[[Request, Replier], None]],
    tls: ssl.SSLContext | None,
    occasions: Occasions,
) -> None:
    """Serve until a signal says stop; whoever waits for an answer then gets it.

    `application` is made in the event loop, of the server whose requests it answers.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _STOPPING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, occasions.on_reload)
    http_server = HttpServer(application, loop.time, allow_many_connections(), loop.call_soon)
    server = await loop.create_server(
        lambda: Connection(http_server),
        sock=listener,
        backlog=BACKLOG,
        ssl=tls,
        ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
    )
    occasions.on_ready()
    while not stop.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), TICK_SECONDS)
        http_server.sweep()
        occasions.on_tick()
    server.close()
    http_server.close()
    until = loop.time() + _SHUTDOWN_SECONDS
    while http_server.connections and loop.time() < until:
        await asyncio.sleep(_LOOK_SECONDS)


def allow_many_connections() -> int:
    """Raise the soft limit of open files; return how many of them connections may take.

    Each waiting wrapper keeps a connection.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = min(hard - _OTHER_FILES, CONNECTIONS_MAX)
    if connections < CONNECTIONS_FEW:
        note(
            logging.WARNING,
            f"only {connections} connections have room, one for each running job that renews:"
            " raise the limit of open files (`ulimit -Hn`, LimitNOFILE= of systemd)",
        )
    return connections
