"""Where the scenarios run: a personal pool, a lease server and a transfer service.

Runs where `make demo` runs.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import htlease
import htlease_agent
import htlease_cli
import htlease_dagman
from htlease.client.client import LeaseServer
from htlease.client.connection import find_connection
from htlease_cli.pyz import put_pyz
from htlease_lab.pool import Pool, PoolError
from htlease_lab.pool.files import JOB_USER_ID
from htlease_lab.scenarios import transfer_tool
from htlease_lab.scenarios.servers import ServerOfScenario, TransferService

__all__ = ["Environment", "PoolError"]

_OURS = (htlease, htlease_dagman, htlease_agent, htlease_cli)
SECRET = "transfer-secret-"
#: What the watchers need beside the standard library, and what `globus-sdk` needs.
_PACKAGES = ("tenacity",)
#: What the command needs besides.
_COMMAND_PACKAGES = ("click",)
_GLOBUS_PACKAGES = (
    *("globus-sdk", "requests", "urllib3", "idna", "certifi", "charset-normalizer"),
    *("PyJWT", "typing_extensions"),
)


class Environment:
    """A pool and the two servers; `say` prints what happens."""

    def __init__(
        self,
        name: str,
        suite: str | None,
        tell: Callable[[str, str | None], None],
    ) -> None:
        """Prepare; `tell` prints a line, in a colour if it is given one."""
        self._tell = tell
        roots = [Path(str(module.__file__)).parents[1] for module in _OURS]
        self.pool = Pool(name, suite, shared=roots, report=self.say)
        self._roots = roots
        self._has_globus = False
        #: Workflows made so far.
        self.number = 0

    def say(self, text: str) -> None:
        """Print a line."""
        self._tell(text, None)

    def head(self, text: str) -> None:
        """Begin a run."""
        self._tell(text, "blue")

    def mark(self, text: str, is_right: bool) -> None:
        """Print what was seen, and whether it is as it should be."""
        self._tell(f"  {'ok' if is_right else 'WRONG'}  {text}", "green" if is_right else "red")

    def up(self) -> None:
        """Start everything from nothing."""
        self.pool.down(purge=True)
        self.pool.up()
        # Else DAGMan looks at its jobs and deferred scripts each 5 s, and 25.14 waits 300 s before
        # it starts a DAGMan that was released.
        self.pool.configure(
            "ap",
            "scenario",
            "DAGMAN_USER_LOG_SCAN_INTERVAL = 1\nSCHEDULER_UNIVERSE_COOL_DOWN_DURATION = 1\n",
        )
        self.site = self.pool.directory / "site"
        self.site.mkdir(mode=0o755)
        address = self.pool.ap_address
        self.secret = SECRET + secrets.token_hex(8)
        self.credential = self.site / "transfer.token"
        self.replace_credential(self.secret)
        self.service = TransferService(
            address, self.site, self.credential, self.pool.work_dir.resolve()
        )
        self.service.start()
        state = self.site / "lease-server"
        state.mkdir(mode=0o700)
        self.lease_server = ServerOfScenario(
            "htlease_server", address, self.site / "lease-server.log", ["--state-dir", str(state)]
        )
        self.lease_server.start()
        self._write_program()
        self.say(f"HTCondor {self.pool.state()['version']}, lease server, transfer service: up")

    def down(self) -> None:
        """End everything, and keep nothing."""
        for name in ("service", "lease_server"):
            if hasattr(self, name):
                getattr(self, name).stop()
        self.pool.down(purge=True)

    def replace_credential(self, text: str) -> None:
        """Do what a person does who has logged in again."""
        new = self.credential.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        self.give(new)
        new.replace(self.credential)

    def server(self) -> LeaseServer:
        """Return the lease server as the administrator sees it."""
        token = self.site / "lease-server/admin.token"
        return LeaseServer.at(
            find_connection(self.lease_server.url_for_tokens, token, {}, os.getuid())
        )

    def give(self, path: Path) -> None:
        """Let a file belong to the pool's user."""
        if os.geteuid() == 0:
            os.chown(path, JOB_USER_ID, JOB_USER_ID)

    def run_htlease(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the `htlease` command on the access point as its user."""
        admin_token = (self.site / "lease-server/admin.token").read_text().strip()
        return self.pool.run(
            ["python3", "-m", "htlease_cli.cli", *arguments],
            cwd=cwd,
            check=False,
            env={
                "PYTHONPATH": ":".join(map(str, [*self._roots, self.site / "lib"])),
                "HTLEASE_URL": self.lease_server.url_for_tokens,
                "BEARER_TOKEN": admin_token,
                "XDG_STATE_HOME": str(self.pool.work_dir),
            },
        )

    def wrapper(self) -> Path:
        """Return the wrapper file, where the access point's user finds it."""
        pyz = self.site / "htlease-ep.pyz"
        if not pyz.exists():
            put_pyz(pyz)
            pyz.chmod(0o755)
        return pyz

    def add_globus(self) -> None:
        """Let the watchers find `globus-sdk`."""
        if not self._has_globus:
            self._add_packages(_GLOBUS_PACKAGES)
            self._has_globus = True

    def _write_program(self) -> None:
        self._add_packages((*_PACKAGES, *_COMMAND_PACKAGES))
        library = self.site / "lib"
        for module in (htlease, htlease_dagman):
            package = Path(str(module.__file__)).parent
            shutil.copytree(package, library / package.name)
        self.tool = shutil.copyfile(str(transfer_tool.__file__), self.site / "tool.py")
        self.program = self.site / "htlease-dag"
        self.program.write_text(
            "#!/bin/sh\n"
            f'export PYTHONPATH="{library}" PYTHONDONTWRITEBYTECODE=1\n'
            'exec python3 -m htlease_dagman.cli "$@"\n'
        )
        self.program.chmod(0o755)

    def _add_packages(self, names: Sequence[str]) -> None:
        """Copy installed distributions, compiled parts left out: another Python will load them."""
        for name in names:
            for file in importlib.metadata.files(name) or ():
                if ".." in file.parts or file.suffix in (".so", ".pyc"):
                    continue
                copy = self.site / "lib" / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), copy)
