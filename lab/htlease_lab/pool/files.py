"""Writes the directory of a pool: accounts, configuration, the daemons' own directories."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import config
from .errors import PoolError
from .network import EXECUTION_POINTS, Network
from .software import Software

JOB_USER = "jobuser"
JOB_USER_ID = 20777
_DAEMON_DIRECTORIES = (
    *("log", "spool", "lock", "run", "execute", "local_execute", "tokens.d", "config.d"),
)


def host_name(host: str, pool: str) -> str:
    """Return the name of `ap`, `ep1` or `ep2` of a pool."""
    return f"{host}.{pool}.pool"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock that a file stands for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_files(
    directory: Path, pool: str, job_user: str, net: Network, found: Software
) -> config.PoolFacts:
    """Write everything the daemons need before they start; `directory` is there and empty."""
    condor_ids = _write_accounts(directory / "etc", directory / "work", pool, net, found)
    facts = config.PoolFacts(
        domain=f"{pool}.pool",
        ap_address=net.ap_address,
        job_user=job_user,
        password_directory=directory / "ap/passwords.d",
        program=_program(found),
        loopback=not net.bridged,
    )
    for host in ("ap", *EXECUTION_POINTS):
        for part in _DAEMON_DIRECTORIES:
            (directory / host / part).mkdir(parents=True)
            _give(directory / host / part, condor_ids)
        own, name = directory / host, host_name(host, pool)
        text = (
            config.access_point(facts, name, own)
            if host == "ap"
            else config.execution_point(facts, name, net.ep_address(host), own)
        )
        (directory / "etc" / f"{host}.config").write_text(text)
    facts.password_directory.mkdir(mode=0o700)
    (directory / "work").mkdir()
    _give(directory / "work", (JOB_USER_ID, JOB_USER_ID))
    return facts


def write_client_files(directory: Path, schedd: str, facts: config.PoolFacts, token: str) -> None:
    """Write what a client outside the pool needs to act as the job user."""
    tokens = directory / "client/tokens.d"
    tokens.mkdir(parents=True)
    token_file = tokens / facts.job_user
    token_file.touch(mode=0o600)
    token_file.write_text(token)
    (directory / "client/condor_config").write_text(config.client(facts, schedd, tokens))


def _write_accounts(
    etc: Path, home: Path, pool: str, net: Network, found: Software
) -> tuple[int, int]:
    """Write hosts, passwd and group for the enclosure; return the ids of HTCondor's account."""
    etc.mkdir()
    hosts = ["127.0.0.1 localhost", f"{net.ap_address} {host_name('ap', pool)} ap"]
    hosts += [f"{net.ep_address(ep)} {host_name(ep, pool)} {ep}" for ep in EXECUTION_POINTS]
    (etc / "hosts").write_text("\n".join(hosts) + "\n")
    software_etc = (found.root or Path("/")) / "etc"
    passwd = (software_etc / "passwd").read_text()
    group = (software_etc / "group").read_text()
    passwd += f"{JOB_USER}:x:{JOB_USER_ID}:{JOB_USER_ID}:job user:{home}:/bin/sh\n"
    group += f"{JOB_USER}:x:{JOB_USER_ID}:\n"
    if not any(line.startswith("condor:") for line in passwd.splitlines()):
        condor_id = JOB_USER_ID + 1
        passwd += f"condor:x:{condor_id}:{condor_id}:HTCondor:/:/usr/sbin/nologin\n"
        group += f"condor:x:{condor_id}:\n"
    (etc / "passwd").write_text(passwd)
    (etc / "group").write_text(group)
    condor = next(line for line in passwd.splitlines() if line.startswith("condor:"))
    user_id, group_id = condor.split(":")[2:4]
    return int(user_id), int(group_id)


def _give(directory: Path, ids: tuple[int, int]) -> None:
    # Without root all daemons and jobs run as the caller, who owns everything anyway.
    if os.geteuid() == 0:
        os.chown(directory, *ids)


def _program(found: Software) -> config.Program:
    if found.root:
        return config.Program()
    names = ("RELEASE_DIR", "BIN", "SBIN", "LIB", "LIBEXEC", "SHARE")
    asked = subprocess.run(["condor_config_val", *names], capture_output=True, text=True)
    values = asked.stdout.splitlines()
    if asked.returncode or len(values) != len(names):
        raise PoolError(f"condor_config_val does not tell where HTCondor is: {asked.stderr}")
    return config.Program(*values)
