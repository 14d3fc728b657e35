"""A scratch directory in which hooks run as a starter runs them, with ads recorded from a pool."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.serving import ServerProcess

ADS = Path(__file__).resolve().parents[1] / "data" / "ads"
VERSIONS = ("23.9.6", "25.14.1")
STARTER_HOOKS = ("prepare_job_before_transfer", "prepare_job", "update_job_info", "job_exit")
#: What a starter's environment holds for its children, hooks included.
SECRETS = {
    "CONDOR_INHERIT": "1 <10.0.0.1:9618?sock=s> 0 SECRETinheritedsocket",
    "CONDOR_PRIVATE_INHERIT": "SessionKey:SECRETsessionkey",
    "CONDOR_PRIVATE_SHARED_PORT_COOKIE": "SECRETcookie",
    "BEARER_TOKEN": "SECRETbearertokenofadaemon",
}
_NUMBERS = itertools.count(1)
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Called:
    """What one call of a hook did."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def attributes(self) -> dict[str, str]:
        """The answer's attributes; text without its outer quotes."""
        pairs = (line.partition(" = ") for line in self.stdout.splitlines())
        return {name: value.strip('"') for name, _, value in pairs}

    @property
    def code(self) -> int:
        return int(self.attributes.get("HookStatusCode", "0"))


class Hooks:
    """The links of a site, all to one pyz, and a process that stands for any job."""

    def __init__(self, directory: Path, pyz: Path) -> None:
        directory.mkdir()
        self.job = subprocess.Popen(["/bin/sleep", "600"])
        self.directory = directory
        (directory / "htlease-ep.pyz").symlink_to(pyz)
        for name in STARTER_HOOKS:
            (directory / name).symlink_to("htlease-ep.pyz")

    @property
    def job_is_alive(self) -> bool:
        """Tell whether no hook has stopped the job."""
        return self.job.poll() is None

    def close(self) -> None:
        self.job.kill()
        self.job.wait()

    def program(self, name: str, text: str) -> str:
        """Put a hook of the site's own there and return its path."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)


class HookedStart:
    """One start of a job, in the scratch directory of its starter."""

    def __init__(
        self,
        path: Path,
        hooks: Hooks,
        server: ServerProcess,
        *,
        version: str = "25.14.1",
        key: str | None = None,
        token: str | None = None,
        **attributes: object,
    ) -> None:
        self.path = path
        path.mkdir()
        self.hooks = hooks
        self.server = server
        number = next(_NUMBERS)
        self.key = key or f"hooked/s{number}"
        self.token = server.admin_token if token is None else token
        self.version = version
        self.changes: dict[str, object] = {
            "HTLeaseKey": self.key,
            "GlobalJobId": f"ap.test.pool#{number}.0#1795244500",
            **attributes,
        }
        self.options = ["--ttl=30", "--wait-lease=2", "--wait-server=2"]
        self.environ: dict[str, str] = {
            "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin",
            "_CONDOR_SCRATCH_DIR": str(path),
            "_CONDOR_JOB_AD": str(path / ".job.ad"),
            "_CONDOR_MACHINE_AD": str(path / ".machine.ad"),
            "_CONDOR_ANCESTOR_77": f"{os.getpid()}:1795244500:1",
            **SECRETS,
        }
        (path / ".job.ad").write_text(self.ad("first-start"))
        (path / ".machine.ad").write_text((ADS / version / "machine.ad").read_text())
        if self.token:
            self.transfer_token()

    def transfer_token(self) -> None:
        """Put the token where a transfer of input would put it."""
        (self.path / "htlease.token").write_text(self.token)

    def move_to(self, slot: str) -> None:
        """Run in another slot than all the others."""
        ad = self.path / ".machine.ad"
        ad.write_text(ad.read_text().replace('Name = "slot1_1', f'Name = "{slot}'))

    def ad(self, name: str, **attributes: object) -> str:
        """Return a recorded ad with this start's names in it, as a hook reads it."""
        changes = {**self.changes, **attributes}
        kept = [
            line
            for line in (ADS / self.version / f"{name}.ad").read_text().splitlines()
            if line.partition(" = ")[0] not in changes
        ]
        changed = [
            f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
            for name, value in changes.items()
            if value is not None
        ]
        return "\n".join([*kept, *changed]).replace("True", "true").replace("False", "false") + "\n"

    def start(
        self, hook: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a hook; its input is still to be given."""
        return subprocess.Popen(
            [str(self.hooks.directory / hook), *arguments],
            cwd=self.path,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(
        self, hook: str, ad: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> Called:
        """Call a hook with an ad on its standard input and wait for its end."""
        began_at = time.monotonic()
        process = self.start(hook, *arguments, environ=environ)
        stdout, stderr = process.communicate(ad.encode(), timeout=_LIMIT_SECONDS)
        seconds = time.monotonic() - began_at
        return Called(process.returncode, stdout.decode(), stderr.decode(), seconds)

    def prepare(
        self,
        hook: str = "prepare_job",
        *options: str,
        server: str | None = None,
        **attributes: object,
    ) -> Called:
        """Call a PREPARE hook as the site's configuration would."""
        url = self.server.url if server is None else server
        arguments = [f"--server={url}", *self.options, *options]
        return self.call(hook, self.ad("first-start", **attributes), *arguments)

    def update(self, **attributes: object) -> Called:
        """Call UPDATE_JOB_INFO for a job that runs."""
        pid = {"JobPid": self.hooks.job.pid}
        return self.call("update_job_info", self.ad("running", **{**pid, **attributes}))

    def exit(self, why: str, name: str = "exited", code: str | None = "0") -> Called:
        """Call JOB_EXIT."""
        environ = {} if code is None else {"_CONDOR_MAINJOB_EXIT_CODE": code}
        return self.call("job_exit", self.ad(name), why, environ=environ)

    def events(self, *names: str) -> list[dict[str, object]]:
        """Return the subjob's events of these names."""
        return self.server.events(self.key, *names)

    def entered(self) -> list[object]:
        """Return the fences that entered a phase, in order."""
        return [event["fence"] for event in self.events("phase-entered")]
