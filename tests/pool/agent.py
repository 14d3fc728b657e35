"""`htlease agent` on the access point of a pool, and the configuration that calls its hook."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import aiohappyeyeballs
import aiohttp
import aiosignal
import attr
import attrs
import click
import frozenlist
import idna
import multidict
import propcache
import tenacity
import typing_extensions
import yarl
from tests.pool.lab import COMMAND_ROOTS, Lab

#: Pure Python as installed here runs under the access point's own Python as well.
_PACKAGES = (
    *(aiohappyeyeballs, aiohttp, aiosignal, attr, attrs, click, frozenlist, idna, multidict),
    *(propcache, tenacity, typing_extensions, yarl),
)
_PURE = {f"{name}_NO_EXTENSIONS": "1" for name in ("AIOHTTP", "FROZENLIST", "MULTIDICT", "YARL")}
_PURE["PROPCACHE_NO_EXTENSIONS"] = "1"


def site_directory(lab: Lab) -> Path:
    """Return the directory of hook programs, which all machines of the pool see."""
    directory = lab.pool.directory / "site"
    directory.mkdir(mode=0o755, exist_ok=True)
    return directory


class AgentProcess:
    """An agent that runs as root, as condor_master would run it."""

    def __init__(self, lab: Lab, *options: str) -> None:
        self.lab = lab
        self.directory = site_directory(lab)
        self.socket = self.directory / "agent.sock"
        self.log = self.directory / "agent.log"
        self.state = self.directory / "agent-state"
        self.token = self.directory / "admin.token"
        self._options = options
        self._operator_token = lab.server.operator_token()
        self._process: subprocess.Popen[bytes] | None = None

    def beside(self, name: str) -> AgentProcess:
        """Use files of another name, so that two agents can run."""
        self.socket = self.directory / f"{name}.sock"
        self.log = self.directory / f"{name}.log"
        self.state = self.directory / f"{name}-state"
        self.token = self.directory / f"{name}.token"
        return self

    def start(self) -> None:
        """Start, or start again with the same state."""
        library = self.directory / "lib"
        library.mkdir(exist_ok=True)
        for package in _PACKAGES:
            place = Path(str(package.__file__))
            place = place.parent if place.name == "__init__.py" else place
            if not (library / place.name).exists():
                (library / place.name).symlink_to(place)
        self.token.touch(mode=0o600)
        self.token.write_text(self._operator_token)
        command = self.lab.pool.command(
            [
                *("python3", "-m", "htlease_cli.cli", "agent", "--socket", str(self.socket)),
                *("--server", self.lab.server.url, "--admin-token-file", str(self.token)),
                *("--state-dir", str(self.state)),
                *self._options,
            ],
            as_root=True,
            env=self._environment(),
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.lab.pool.wait_for(self._is_ready, f"the agent to be ready (see {self.log})", 30)

    def python(self, *arguments: str) -> str:
        """Run Python as the agent's is run, to the end, and return what it printed."""
        done = self.lab.pool.run(
            ["python3", *arguments],
            as_root=True,
            env={
                **self._environment(),
                "HTLEASE_URL": self.lab.server.url,
                "BEARER_TOKEN_FILE": str(self.token),
            },
            check=False,
            timeout_seconds=300,
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def _environment(self) -> dict[str, str]:
        return {"PYTHONPATH": ":".join([*COMMAND_ROOTS, str(self.directory / "lib")]), **_PURE}

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.socket.exists()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process, with SIGKILL as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait(20)
            self._process = None


def install_shadow_hook(lab: Lab, agent: AgentProcess, **options: str) -> None:
    """Let the shadow ask the agent, and stamp what its hook needs on every job."""
    directory = site_directory(lab)
    pyz = directory / "htlease-ep.pyz"
    pyz.write_bytes(lab.pyz.read_bytes())
    pyz.chmod(0o755)
    link = directory / "shadow_prepare_job"
    if not link.is_symlink():
        link.symlink_to(pyz.name)
    given = {"socket": str(agent.socket), "url": lab.server.url, **options}
    arguments = " ".join(f"--{name.replace('_', '-')}={value}" for name, value in given.items())
    lab.pool.configure(
        "ap",
        "agent-test",
        f"""
SHADOW_DEFAULT_JOB_HOOK_KEYWORD = HTLEASE
HTLEASE_HOOK_SHADOW_PREPARE_JOB = {link}
HTLEASE_HOOK_SHADOW_PREPARE_JOB_ARGS = {arguments}
JOB_TRANSFORM_NAMES = HTLEASE
JOB_TRANSFORM_HTLEASE @=end
    DEFAULT WantIOProxy true
    EVALSET HTLeaseKey HTLeaseKey ?: strcat(split(GlobalJobId, "#")[0], "-", ClusterId, "-", \
        QDate, "/", ProcId)
@end
""",
    )
