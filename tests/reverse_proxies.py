"""nginx and HAProxy in front of a server, as sites have them: Debian's, on loopback, gone afterwards.

Installs them where they are missing (as root), and has Debian start no service for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.postgres import free_port

_START_SECONDS = 30.0
_PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy"}
_NO_SERVICES = Path("/usr/sbin/policy-rc.d")

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000; client_max_body_size 300k;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream lease {{ server {server}; keepalive 32; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://lease; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""
_HAPROXY = """
global
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 150s
    http-reuse always
frontend lease
    bind 127.0.0.1:{port}
    default_backend lease
backend lease
    server lease {server}
"""


@contextlib.contextmanager
def in_front_of(server: str, kind: str, folder: Path) -> Iterator[str]:
    """Yield the address of a proxy, `nginx` or `haproxy`, that passes on to a server's HOST:PORT."""
    program = _program(kind)
    folder.mkdir(exist_ok=True)
    port = free_port()
    text = {"nginx": _NGINX, "haproxy": _HAPROXY}[kind]
    config = folder / f"{kind}.conf"
    config.write_text(text.format(folder=folder, server=server, port=port))
    options = ("-c", config) if kind == "nginx" else ("-db", "-f", config)
    with (folder / "log").open("wb") as log:
        proxy = subprocess.Popen([program, *options], stdout=log, stderr=log)
    try:
        _wait_for(port, proxy, folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(30)


def _wait_for(port: int, proxy: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert proxy.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def _program(kind: str) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin"
    found = shutil.which(kind, path=path)
    if found is None:
        is_ours = not _NO_SERVICES.exists()
        if is_ours:
            _NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
            _NO_SERVICES.chmod(0o755)
        try:
            for command in (["update", "-q"], ["install", "-qy", _PACKAGES[kind]]):
                subprocess.run(
                    [
                        *("apt-get", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends"),
                        *command,
                    ],
                    check=True,
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                    stdout=subprocess.DEVNULL,
                )
        finally:
            if is_ours:
                _NO_SERVICES.unlink()
        found = shutil.which(kind, path=path)
    assert found is not None, f"{kind} is not installed"
    return found
