"""A lease server beside a pool, and htlease's hooks in it. Runs on the host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .config import site_directory
from .enclosure import Enclosure, start_time
from .errors import PoolError
from .network import EXECUTION_POINTS
from .pool import Pool

_START_SECONDS = 30.0
_URL = re.compile(r"^htlease server +(\S+)$", re.MULTILINE)
#: Short, like all times of the pool; a lease outlives several renewals.
_MACROS = {"HTLEASE_TTL": "60", "HTLEASE_UPDATE_INTERVAL": "10"}


def provide(pool: Pool, url: str | None, token_file: Path | None) -> str:
    """Give the access point a lease server and a token for it, and return the server's URL.

    Without `url` a server is started that ends with the pool. Raises PoolError.
    """
    known = pool.state().get("lease_server", {})
    if url is None:
        is_running = known and (known["pid"] is None or _process(known).alive())
        if is_running:
            return str(known["url"])
        url, token_file = _start(pool)
    elif token_file is None or not token_file.is_file():
        raise PoolError(f"Name a file with a token for {url} with --admin-token-file.")
    else:
        pool.record(lease_server={"url": url, "token": str(token_file.resolve()), "pid": None})
    _give_token(pool, token_file)
    return url


def _start(pool: Pool) -> tuple[str, Path]:
    directory = pool.directory / "lease-server"
    directory.mkdir(mode=0o700, exist_ok=True)
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "htlease_server", "--state-dir", str(directory)),
                *("--listen", f"{pool.ap_address}:0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if "HTLEASE" not in name},
        )
    until = time.monotonic() + _START_SECONDS
    while (found := _URL.search(log.read_text())) is None:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            last = (log.read_text().strip() or "no reason given").splitlines()[-1]
            raise PoolError(f"The lease server did not start: {last} (see {log})")
        time.sleep(0.05)
    # The pool's network is trusted with the tokens of its jobs.
    url = found[1].replace("http://", "http+insecure://") if pool.network().bridged else found[1]
    token = directory / "admin.token"
    pool.record(
        lease_server={
            "url": url,
            "token": str(token),
            "pid": process.pid,
            "started": start_time(process.pid),
        }
    )
    return url, token


def _process(known: dict[str, object]) -> Enclosure:
    return Enclosure(int(str(known["pid"])), str(known["started"]))


def _give_token(pool: Pool, token_file: Path) -> None:
    """Put a token where `htlease` on the access point finds it, by whomever it is run."""
    owner = pool.work_dir.stat()
    place = pool.work_dir
    for part in (".local", "state", "htlease"):
        place /= part
        place.mkdir(mode=0o700, exist_ok=True)
        _give(place, owner)
    _copy_secret(token_file, place / "admin.token", owner)


def _copy_secret(source: Path, target: Path, owner: os.stat_result) -> None:
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    shutil.copyfile(source, target)
    _give(target, owner)


def _give(path: Path, owner: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def install_hooks(pool: Pool, url: str) -> None:
    """Give all jobs of the pool htlease's hooks and an agent; raises PoolError."""
    agent_token = pool.directory / "ap/agent.token"
    daemons = (pool.directory / "ap/spool").stat()
    _copy_secret(Path(pool.state()["lease_server"]["token"]), agent_token, daemons)
    macros = {
        "HTLEASE_AGENT": str(pool.directory / "htlease/bin/htlease"),
        "HTLEASE_ADMIN_TOKEN_FILE": str(agent_token),
    }
    # As a site does it: execution points first.
    for ep in EXECUTION_POINTS:
        _install(pool, ep, url, _MACROS)
    _install(pool, "ap", url, macros)
    socket = pool.directory / "ap/lock/htlease.agent"
    pool.wait_for(socket.exists, f"the agent (see {pool.directory}/ap/log/HTLeaseAgentLog)")


def has_hooks(pool: Pool) -> bool:
    """Tell whether the access point has htlease's configuration."""
    return (site_directory(pool.directory / "ap") / "60-htlease-ap.conf").exists()


def _install(pool: Pool, host: str, url: str, macros: dict[str, str]) -> None:
    words = ["htlease", "hooks", "install", "--role", "ap" if host == "ap" else "ep"]
    words += ["--url", url]
    words += [word for name, value in macros.items() for word in ("--set", f"{name}={value}")]
    pool.run(words, as_root=True, on=host)
    pool.reconfigure(host)
