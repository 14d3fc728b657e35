"""The relay's process: what it listens on, and how it starts and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from htlease.errors import BadConfig
from htlease_admin.lease_server import LeaseServer
from htlease_admin.relay.desk import Desk
from htlease_admin.relay.owners import WorkflowOwners
from htlease_admin.relay.reports import Reports
from htlease_admin.relay.starts import Starts
from htlease_admin.relay.watcher import Watcher


@dataclass(frozen=True)
class RelayOptions:
    """What `htlease relay` was asked to do."""

    #: Address and port of the proxy; None: no proxy.
    listen: tuple[str, int] | None
    socket_path: Path
    schedd_name: str | None
    token_ttl_seconds: float
    state_directory: Path
    poll_seconds: float


async def run(options: RelayOptions, server: LeaseServer, say: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT; raises BadConfig when it cannot listen."""
    starts = Starts(server, WorkflowOwners(server), options.schedd_name, options.token_ttl_seconds)
    watcher = Watcher(
        Reports(server), options.schedd_name, options.state_directory, options.poll_seconds
    )
    stop = threading.Event()
    watching = threading.Thread(target=watcher.run, args=(stop,), name="relay-watcher", daemon=True)
    desk = web.AppRunner(Desk(starts).app(), access_log=None)
    await desk.setup()
    try:
        await web.SockSite(desk, _unix_socket(options.socket_path)).start()
        watching.start()
        say(f"htlease relay: tokens at {options.socket_path}")
        await _told_to_end()
    finally:
        stop.set()
        options.socket_path.unlink(missing_ok=True)
        await desk.cleanup()


async def _told_to_end() -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


def _unix_socket(path: Path) -> socket.socket:
    """Listen at a path, in place of what a killed relay left there; raises BadConfig.

    Everybody may connect: who it is, the kernel tells for each connection.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if _is_answered(path):
            raise BadConfig(f"another relay answers at {path} already; stop it, or name another")
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        listening.bind(str(temporary))
        temporary.chmod(0o666)
        listening.listen(256)
        temporary.rename(path)
    except OSError as error:
        raise BadConfig(
            f"relay socket {path}: {error.strerror or error}; name another with --socket"
        ) from None
    return listening


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
    return True
