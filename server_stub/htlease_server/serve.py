"""Start-up: defaults, checks with a sentence each, and a server that stops cleanly."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from htlease.errors import BadConfig
from htlease.version import VERSION
from htlease.wire.transport import INSECURE
from htlease_server import logs
from htlease_server.api.app import App
from htlease_server.api.queries import Queries
from htlease_server.auth.authenticator import Authenticator, NoAuth
from htlease_server.auth.job_tokens import OwnTokens
from htlease_server.auth.rate_limit import RATE_DEFAULT_PER_SECOND, RateLimiter
from htlease_server.auth.refresher import Refresher
from htlease_server.auth.secret_files import read_or_make_secret
from htlease_server.auth.signing_keys import KeyFiles
from htlease_server.engine.downtime import steady_clock
from htlease_server.engine.open_writer import make_directory, open_store_writer
from htlease_server.http.listener import BACKLOG, Occasions, listen
from htlease_server.http.server import HttpServer
from htlease_server.http.systemd import Manager
from htlease_server.http.tls import Certificate
from htlease_server.store.base import Displaced, StoreFailed

LISTEN_DEFAULT = "127.0.0.1:8620"


@dataclass(frozen=True)
class ServeOptions:
    """What `htlease serve` can be told; None stands for the default."""

    #: HOST:PORT; port 0 takes a free one.
    listen: str = LISTEN_DEFAULT
    #: `postgresql://…`, or `sqlite:///PATH`, by default `htlease.sqlite3` in the state directory.
    store: str | None = None
    #: Made, mode 0600, when absent; the key of job tokens, `signing.key`, lies beside it.
    admin_token_file: Path | None = None
    #: By default `$XDG_STATE_HOME/htlease`, else `~/.local/state/htlease`.
    state_dir: Path | None = None
    no_auth: bool = False
    #: Says which issuers' tokens are accepted, see `issuer_config`.
    auth_config: Path | None = None
    #: PEM files; both, or neither for plain HTTP.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: Requests per second of one token, but for plain renewals; 0: any number.
    rate_limit: float = RATE_DEFAULT_PER_SECOND
    #: One of `logs.FORMATS` and of `logs.LEVELS`; the file is stderr where none is named.
    log_format: str = "text"
    log_level: str = "info"
    log_file: Path | None = None


def default_state_dir() -> Path:
    """Return the directory for store and tokens when none is named."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "htlease"


def serve(options: ServeOptions, say: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM, SIGINT or SIGQUIT; raises BadConfig when it cannot start.

    Raises StoreFailed when it cannot go on.
    Call it in the main thread. `say` gets one text, once the address takes connections.
    """
    try:
        _serve(options, say)
    except Displaced as problem:
        print(f"htlease: {problem}; it has stopped", file=sys.stderr, flush=True)
        # To close the last connection would remove a log by its name, which is another's by now.
        os._exit(1)


def _serve(options: ServeOptions, say: Callable[[str], None]) -> None:
    state_dir = (options.state_dir or default_state_dir()).absolute()
    token_path = options.admin_token_file or state_dir / "admin.token"
    host, port = _address(options.listen)
    if options.no_auth and not _is_loopback(host):
        raise BadConfig(
            f"--no-auth is for loopback only and {host} is not; leave --no-auth out, or listen on"
            " 127.0.0.1"
        )
    if not 0 <= options.rate_limit < float("inf"):
        raise BadConfig("--rate-limit is requests per second, 0 or more; 0 means no limit")
    certificate = _certificate(options)
    os.umask(0o077)
    logs.configure(options.log_format, options.log_level, options.log_file)
    if not options.no_auth:
        make_directory(token_path.parent)
    clock = steady_clock()
    keys: KeyFiles | None = None
    if options.no_auth:
        authenticator: Authenticator = NoAuth(clock)
    else:
        admin_token = read_or_make_secret(token_path, "admin token file")
        keys = KeyFiles(token_path.with_name("signing.key"))
        authenticator = Authenticator(admin_token, OwnTokens(keys, clock), clock)
        if options.auth_config is not None:
            from htlease_server.auth.issuer_config import read_auth_config
            from htlease_server.auth.scitokens import IssuerTokens

            authenticator.issuers = IssuerTokens(
                read_auth_config(options.auth_config),
                state_dir / "issuers",
                clock,
                authenticator.forget,
            )
    listener = _listen(host, port)
    with listener:
        store_writer = open_store_writer(options.store, state_dir, clock)
        states = store_writer.states
        queries = Queries(states, lambda: store_writer.queued > 0)
        url = _url_of(listener, certificate is not None)
        refresher = None if keys is None else Refresher(authenticator, keys, states.reader(), clock)
        for helper in (refresher, authenticator.issuers):
            if helper is not None:
                helper.start()
        try:
            _keep_garbage_collection_short()
            manager = Manager()

            def application(http_server: HttpServer) -> App:
                store_writer.start(asyncio.get_running_loop())
                limit = options.rate_limit
                rate_limiter = RateLimiter(limit, time.monotonic) if limit else None
                return App(store_writer, queries, authenticator, http_server, rate_limiter)

            def on_ready() -> None:
                say(_where(url, states.name, None if options.no_auth else token_path))
                logs.note(logging.INFO, "started", version=VERSION, url=url, store=states.name)
                manager.tell("READY=1", f"STATUS=serving {url}, store {states.name}")

            def on_reload() -> None:
                logs.note(logging.INFO, "told to look at its files again")
                if certificate is not None:
                    certificate.look()

            def on_tick() -> None:
                if store_writer.displaced is not None:
                    raise store_writer.displaced
                if not store_writer.is_alive:
                    # What it did last is not known; the next start finds it on the disk.
                    raise StoreFailed(f"what writes to {states.name} has ended; start it again")
                manager.tell_alive()

            tls = certificate.context() if certificate else None
            occasions = Occasions(on_ready, on_reload, on_tick)
            uvloop.run(listen(listener, application, tls, occasions))
            manager.tell("STOPPING=1")
        finally:
            for helper in (refresher, authenticator.issuers):
                if helper is not None:
                    helper.stop()
            queries.close()
            store_writer.stop()
            logs.note(logging.INFO, "stopped")


def _certificate(options: ServeOptions) -> Certificate | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise BadConfig("--tls-cert and --tls-key go together; give both")
    return Certificate(options.tls_cert, options.tls_key)


def _keep_garbage_collection_short() -> None:
    # Nothing made so far is garbage. Requests make hardly any cycles, and the states in memory
    # are many: looking through them all takes longer than a request may.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _where(url: str, store: str, token_path: Path | None) -> str:
    lines = [f"htlease server  {url}", f"store           {store}"]
    if token_path is None:
        lines += ["authentication  none: whoever can reach this address may do anything"]
    else:
        lines += [
            f"admin token     {token_path}",
            f"signing key     {token_path.with_name('signing.key')}",
        ]
    if url.startswith(INSECURE):
        lines += ["network         unencrypted: whoever can listen in can take tokens; --tls-cert"]
    lines += [f"for clients     export HTLEASE_URL={url}"]
    if token_path is not None:
        lines += [f"                export BEARER_TOKEN_FILE={token_path}"]
    return "\n".join(lines)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise BadConfig(f"--listen {listen!r} is not HOST:PORT, e.g. {LISTEN_DEFAULT}")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
    except OSError as problem:
        raise BadConfig(f"--listen {host}:{port}: {problem.strerror}") from problem
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        raise BadConfig(
            f"cannot listen on {host}:{port}: {problem.strerror}; choose another --listen, or stop"
            " what uses that address"
        ) from problem
    return listener


def _url_of(listener: socket.socket, is_tls: bool) -> str:
    """Return the URL for clients; they give tokens to other machines over plain http only if the
    URL says so.
    """
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_tls else "http" if _is_loopback(host) else INSECURE
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
