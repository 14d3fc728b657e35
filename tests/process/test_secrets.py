"""A whole life with all our programs, errors included: no secret is anywhere but where it belongs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.process.agent.test_agent_proxy import Agent
from tests.process.execution import Sandbox, wait_for
from tests.process.hooking import HookedStart
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

NONCE = "nonce-of-the-test-itself-4711"
#: Files whose purpose is to hold a secret; all of them have to be their owner's only.
KEPT_IN = re.compile(
    r"(admin\.token|signing(\..*)?\.key|htlease\.token|cli\.token|\.htlease\.json|renewed-token"
    r"|\.htlease-hooks/token)$"
)


class Life:
    """Collects secrets, and everything that somebody might read."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self.folder = folder
        self.server = server
        self.secrets: dict[str, str] = {NONCE: "nonce of the test", server.admin_token: "admin"}
        self.seen: dict[str, bytes] = {}

    def token(self, **wanted: object) -> str:
        answer = self.server.ask("POST", "tokens", dict(wanted))
        token: str = answer["token"]
        self.secrets[token] = f"token {wanted}"
        return token

    def see(self, where: str, text: str | bytes) -> None:
        self.seen[where] = self.seen.get(where, b"") + (
            text if isinstance(text, bytes) else text.encode()
        )

    def htlease(self, token: str, *arguments: str, url: str | None = None) -> int:
        """Run the command with a token in a file, and read what it says."""
        file = self.folder / "cli.token"
        file.touch(mode=0o600)
        file.write_text(token)
        done = subprocess.run(
            [Path(sys.executable).with_name("htlease"), *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "HTLEASE_URL": url or self.server.url,
                "HTLEASE_ADMIN_TOKEN_FILE": str(file),
            },
            capture_output=True,
            timeout=60,
        )
        self.see(f"htlease {' '.join(arguments)}", done.stdout + done.stderr)
        return done.returncode

    def learn_from_files(self) -> None:
        """Take up the secrets that programs of ours made by themselves."""
        for path in self.files():
            text = path.read_text(errors="replace")
            if path.name == ".htlease.json":
                self.secrets[json.loads(text)["nonce"]] = str(path)
            elif path.name in ("renewed-token", "token") or path.suffix in (".key", ".token"):
                self.secrets[text.strip()] = str(path)

    def look_at_processes(self) -> None:
        """Read command lines of all processes, and the environment of those that run payloads."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                self.see(f"command line of {entry.name}", (entry / "cmdline").read_bytes())
                self.see(f"environment of {entry.name}", (entry / "environ").read_bytes())
            except OSError:
                continue

    def files(self) -> Iterator[Path]:
        return (path for path in self.folder.rglob("*") if path.is_file())

    def look_at_files(self) -> None:
        for path in self.files():
            if KEPT_IN.search(str(path)):
                mode = path.stat().st_mode & 0o777
                # The tests themselves put htlease.token there as a transfer does.
                assert path.name == "htlease.token" or not mode & 0o077, (path, oct(mode))
            else:
                self.see(str(path), path.read_bytes())

    def leaks(self) -> list[str]:
        return [
            f"{what} in {where}"
            for where, data in self.seen.items()
            for secret, what in self.secrets.items()
            if secret.encode() in data
        ]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    server = ServerProcess(tmp_path / "server", options=("--log-level", "debug"))
    server.start()
    yield Life(tmp_path, server)
    server.stop()


def _live_wrapped(life: Life, box: Sandbox) -> None:
    """Run a job that outlives its token and saves details; look at it in the middle."""
    workflow, _, subjob = box.key.partition("/")
    token = life.token(workflow=workflow, subjob=subjob, ttl_seconds=5)
    box.write("htlease.token", token).chmod(0o600)
    script = box.script(
        "payload",
        'env > environment; echo data > notes; "$HTLEASE" details notes; echo > on\n'
        'until [ -e go ]; do sleep 0.1; done; "$HTLEASE" phase enter nowhere; exit 0',
    )
    job = box.start("--ttl", "4", "--phase-name", "p", "--", script)
    box.wait_text("on", "\n")
    wait_for((box.path / ".htlease" / "renewed-token").exists, "a fresh token")
    life.learn_from_files()
    life.look_at_processes()
    box.write("go", "")
    assert job.wait(60) == 0, box.messages


def _live_hooked(life: Life, start: HookedStart) -> None:
    assert start.prepare().code == 0
    for called in (start.update(), start.update()):
        life.see("update hook", called.stdout + called.stderr)
    life.learn_from_files()
    life.look_at_processes()
    called = start.exit("exit")
    life.see("exit hook", called.stdout + called.stderr)


def _go_wrong(life: Life, agent_url: str) -> None:
    """Send secrets where they are of no use, in every way in which they might be quoted."""
    token = life.token(workflow="w")
    stolen = life.token(workflow="stolen")
    forged = token[:-4] + "AAAA"
    life.secrets[forged] = "forged token"
    path = "/v1/workflows/w/subjobs/s"
    for url in (life.server.url, agent_url):
        admin = Caller(url, life.server.admin_token)
        for called in (
            Caller(url, forged).get(path),
            Caller(url, stolen).get(path),
            Caller(url, token + " x").get(path),
            admin.post(f"{path}/acquire", nonce=NONCE, evidence={"job_starts": 1}),
            admin.post(f"{path}/acquire", nonce=NONCE, kind="king"),
            admin.post(f"{path}/renew", fence=99, nonce=NONCE),
            admin.post(f"{path}/renew", fence=1, nonce=NONCE, token=token),
            admin.raw("POST", f"{path}/renew", f'{{"nonce": "{NONCE}", "fence": '.encode()),
            admin.get(f"{path}/history"),
            admin.get(path),
            admin.get("/v1/audit"),
            admin.get("/v1/tokens"),
            admin.get("/v1/keys"),
            admin.get("/metrics"),
        ):
            life.see(f"answers of {url}", called.body + repr(called.headers).encode())
    for words in ("token revoke x", "list", "show w/s"):
        assert life.htlease(forged, *words.split()) == 78
    assert life.htlease(token, "audit") == 78
    assert life.htlease(token, "list", url="http://127.0.0.1:9") == 75
    assert life.htlease(token, "list", url="http://lease.invalid") == 78
    assert life.htlease("two words", "list") == 78
    for words in (
        "list",
        "show w/s",
        "history w/s --json",
        "explain w/s",
        "audit",
        "token list",
        "token keys",
        "token rotate-key",
        "token revoke --workflow stolen",
        "maintenance end",
    ):
        assert life.htlease(life.server.admin_token, *words.split()) == 0, life.seen


def test_no_secret_is_anywhere_but_where_it_belongs(
    life: Life, tmp_path: Path, pyz: Path, new_start: Callable[..., HookedStart]
) -> None:
    agent = Agent(tmp_path / "agent", life.server.url, life.token(role="operator"))
    agent.start()
    try:
        _go_wrong(life, agent.url)
        box = Sandbox(tmp_path / "dir_wrapped", pyz, life.server, "secret/wrapped")
        _live_wrapped(life, box)
        start = new_start(server=life.server, key="secret/hooked", token="")
        start.token = life.token(workflow="secret", subjob="hooked", ttl_seconds=20)
        start.transfer_token()
        _live_hooked(life, start)
    finally:
        agent.stop()
    life.learn_from_files()
    life.server.stop()
    life.look_at_files()
    assert len(life.secrets) >= 12, "the life made tokens, keys and nonces"
    assert any(name.endswith("htlease.sqlite3") for name in life.seen), "the store was looked at"
    assert "debug" in (tmp_path / "server" / "server.log").read_text().lower()
    assert life.leaks() == []


def test_a_secret_that_is_shown_would_be_found(life: Life) -> None:
    token = life.token(workflow="w")
    life.see("a log", f"Authorization: Bearer {token}\n")
    assert life.leaks() == ["token {'workflow': 'w'} in a log"]
