"""The agent's process: what it listens on, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from htlease.client.client import LeaseServer
from htlease.client.connection import Connection
from htlease.errors import BadConfig
from htlease.wire.transport import plain_url
from htlease_agent.hook_api import HookApi
from htlease_agent.job_tokens import JobTokens
from htlease_agent.proxy.connection_limits import KEEP_ALIVE_SECONDS, ConnectionLimiter
from htlease_agent.proxy.forward import Proxy
from htlease_agent.proxy.networkless_leases import NetworklessLeases
from htlease_agent.queue_reader import QueueReader
from htlease_agent.reconcile.evidence import AskedEvidence
from htlease_agent.reconcile.queue_watcher import QueueWatcher
from htlease_agent.reconcile.report_end import Reports
from htlease_agent.server_token import RenewingTransport
from htlease_agent.workflow_owners import WorkflowOwners

#: What is under way when the agent is told to end may take so long.
END_SECONDS = 5.0


@dataclass(frozen=True)
class AgentOptions:
    """What `htlease agent` was asked to do."""

    #: Address and port of the proxy; None: no proxy.
    listen: tuple[str, int] | None
    socket_path: Path
    schedd_name: str | None
    token_ttl_seconds: float
    state_directory: Path
    poll_seconds: float
    #: Of leases that are kept here, see `networkless_leases`.
    chirp_ttl_seconds: float


async def run(
    options: AgentOptions, find: Callable[[], Connection], say: Callable[[str], object]
) -> None:
    """Serve until SIGTERM or SIGINT; raises BadConfig when it cannot listen.

    `find` tells the server, and the token as it is now.
    """
    name = socket.gethostname()
    server = LeaseServer(RenewingTransport(find), find().url)
    chirp = NetworklessLeases(
        RenewingTransport(find, via=f"chirp {name} (htlease-agent)"),
        options.state_directory / "starts",
        options.chirp_ttl_seconds,
    )
    job_tokens = JobTokens(
        server,
        WorkflowOwners(server),
        QueueReader(options.schedd_name),
        options.token_ttl_seconds,
        chirp,
    )
    watched, evidence = QueueReader(options.schedd_name), AskedEvidence(options.schedd_name)
    watcher = QueueWatcher(
        Reports(server, evidence), watched, options.state_directory, options.poll_seconds, chirp
    )
    stop = threading.Event()
    watching = threading.Thread(target=watcher.run, args=(stop,), name="agent-watcher", daemon=True)
    limiter = ConnectionLimiter()
    async with contextlib.AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        if options.listen is not None:
            proxy = Proxy(plain_url(server.url), name).app()
            make = limiter.protocol_factory(await _running(stack, proxy, limiter))
            host, port = options.listen
            try:
                listening = await loop.create_server(make, host, port, backlog=1024)
            except OSError as error:
                raise BadConfig(f"--listen {host}:{port}: {error.strerror or error}") from None
            stack.callback(listening.close)
            address = listening.sockets[0].getsockname()
            say(f"htlease agent: passes on what comes to http://{address[0]}:{address[1]}")
        make = limiter.protocol_factory(await _running(stack, HookApi(job_tokens).app(), limiter))
        hook_api = await loop.create_unix_server(make, sock=_unix_socket(options.socket_path))
        stack.callback(options.socket_path.unlink, missing_ok=True)
        stack.callback(hook_api.close)
        stack.callback(evidence.close)
        stack.callback(watched.close)
        stack.callback(stop.set)
        watching.start()
        say(f"htlease agent: tokens at {options.socket_path}")
        await _told_to_end()


async def _running(
    stack: contextlib.AsyncExitStack, app: web.Application, limiter: ConnectionLimiter
) -> web.Server:
    """Start an application, and have it ended with the rest."""
    limiter.watch(app)
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=END_SECONDS
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None
    return runner.server


async def _told_to_end() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    # condor_master sends it at each condor_reconfig; nothing here is read again.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    await ended.wait()


def _unix_socket(path: Path) -> socket.socket:
    """Listen at a path, in place of what a killed agent left there; raises BadConfig.

    Everybody may connect: who it is, the kernel tells for each connection.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if _is_answered(path):
            raise BadConfig(f"another agent answers at {path} already; stop it, or name another")
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        listening.bind(str(temporary))
        temporary.chmod(0o666)
        listening.listen(256)
        temporary.rename(path)
    except OSError as error:
        raise BadConfig(
            f"agent socket {path}: {error.strerror or error}; name another with --socket"
        ) from None
    return listening


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
    return True
