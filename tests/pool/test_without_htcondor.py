"""The README's way for people without HTCondor, typed as it is printed, and what goes with it.

The folder lies in the home directory of who runs the tests, which is closed to the job user where
that is root. Each step is one shell for all commands.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.lab import PROJECT

from htlease_lab.pool import Pool
from htlease_lab.pool.instance import base_directory

_HEADING = "## Without an HTCondor of your own\n"
#: Makes `.venv`, which the tests run from.
_NOT_TYPED = ("make venv",)
#: The first attempt's work outlasts whoever types, on a slow machine too.
_WAITS_FOR_EVICTION = '[ "$HTLEASE_ATTEMPT_NUMBER$step" != 12 ] || sleep 600'


def printed_commands() -> list[str]:
    """Return the section's commands, in order."""
    section = (PROJECT / "README.md").read_text().split(_HEADING)[1].split("\n## ")[0]
    commands = re.findall(r"^    (\S.*)$", section, re.MULTILINE)
    return [command for command in commands if command not in _NOT_TYPED]


class Shell:
    """A shell that keeps directory and variables from one command to the next."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str, status: int = 0) -> str:
        """Run a command to its end and return what it printed; it must end with this status."""
        assert self._process.stdin and self._process.stdout
        mark = uuid.uuid4().hex
        self._process.stdin.write(f"{command}\necho {mark} $?\n")
        self._process.stdin.flush()
        said = ""
        for line in self._process.stdout:
            text, found, ended = line.partition(mark)
            said += text
            if found:
                assert int(ended) == status, f"{command}\n{said}"
                return said
        raise AssertionError(f"the shell ended in {command}\n{said}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """An environment of one who has no pool and no server yet; the unpacked HTCondor is kept."""
    roots = base_directory() / "roots"
    # Not in a directory of pytest's, which is closed to others, and whose name is long for sockets.
    with tempfile.TemporaryDirectory(prefix="htl-") as directory:
        Path(directory).chmod(0o755)
        if os.geteuid() == 0:
            roots.mkdir(parents=True, exist_ok=True)
            (Path(directory) / "roots").symlink_to(roots)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTLEASE_POOL_DIR", directory)
            clean = {
                k: v for k, v in os.environ.items() if not k.startswith(("_CONDOR", "HTLEASE"))
            }
            kept = {k: v for k, v in os.environ.items() if k.startswith("HTLEASE_POOL")}
            yield {**clean, **kept}
            Pool().down(purge=True)


@pytest.fixture(scope="module")
def pool(environment: dict[str, str]) -> Pool:
    """The pool that the commands start, in place of that of the other modules."""
    return Pool()


@pytest.fixture(autouse=True)
def leaves_a_whole_pool() -> None:
    """Leave it to the commands."""


@pytest.fixture(autouse=True, scope="module")
def leaves_no_jobs() -> None:
    """Leave them to the end of the pool."""


@pytest.fixture(scope="module")
def shell(environment: dict[str, str]) -> Iterator[Shell]:
    """A shell in what looks like a clone, in the home directory."""
    with tempfile.TemporaryDirectory(prefix="htlease-clone-", dir=Path.home()) as clone:
        for name in (".venv", "wrappers"):
            (Path(clone) / name).symlink_to(PROJECT / name)
        shell = Shell(Path(clone), environment)
        yield shell
        shell.close()


def _wait_said(shell: Shell, pool: Pool, command: str, pattern: str) -> None:
    pool.wait_for(lambda: re.search(pattern, shell.type(command)), f"{pattern} in {command}", 120)


def test_the_readmes_commands_work_as_printed(shell: Shell, pool: Pool) -> None:
    said: dict[str, str] = {}
    show = "htlease pool run htlease show first/0"
    for command in printed_commands():
        if command == "htlease pool vacate 1.0":
            _wait_said(shell, pool, show, "saved in phase compute")
        if command == "htlease pool run htlease history first/0":
            _wait_said(shell, pool, show, "status +complete")
        if command == "htlease pool run htlease list":
            _wait_said(shell, pool, command, r"pool-2-\d+ +complete")
        if command == "htlease pool down":
            _try_what_else_is_promised(shell, pool)
        said[command] = shell.type(command)
        if command.startswith("cp "):
            shell.type(
                f"sed -i {shlex.quote(f's/sleep 2/{_WAITS_FOR_EVICTION}/')} first/compute.sh"
            )
    assert "first/0" in said[show]
    history = said["htlease pool run htlease history first/0"]
    grants = re.findall(r" (\d+) +ep\d\S+ +- +(\d+) +(?:got|reclaimed) the lease", history)
    assert grants == [("1", "1"), ("2", "2")], history
    assert "every job has its hooks" in said["htlease pool up --hooks"]
    assert not pool.processes()
    assert shell.type("htlease pool run condor_q", 1).startswith("htlease: Pool default is not up")


def _try_what_else_is_promised(shell: Shell, pool: Pool) -> None:
    _try_the_sites_commands(shell)
    _try_a_dag(shell, pool)
    _try_directories(shell)
    checks = shell.type("htlease pool run htlease doctor")
    assert not re.search(r"^(problem|warning)", checks, re.MULTILINE), checks
    outside = shell.type('eval "$(htlease pool env)"; htlease list')
    assert re.search(r"^first +complete", outside, re.MULTILINE)
    shell.type("unset HTLEASE_URL HTLEASE_ADMIN_TOKEN_FILE CONDOR_CONFIG")


def _try_the_sites_commands(shell: Shell) -> None:
    on_ep1 = "htlease pool run --root --on ep1"
    assert "as installed" in shell.type(f"{on_ep1} htlease hooks status")
    shell.type(f"{on_ep1} htlease hooks uninstall --role ep --reconfig")
    assert "not installed" in shell.type(f"{on_ep1} htlease hooks status")
    install = "htlease hooks install --role ep --url $HTLEASE_URL --reconfig"
    shell.type(f"{on_ep1} sh -c {shlex.quote(install)}")
    assert "as installed" in shell.type(f"{on_ep1} htlease hooks status")


def _try_a_dag(shell: Shell, pool: Pool) -> None:
    shell.type("echo 'JOB only ordinary.sub' > small.dag")
    shell.type("htlease pool run htlease dag instrument small.dag")
    shell.type("htlease pool run condor_submit_dag small.dag")
    _wait_said(shell, pool, "htlease pool run htlease dag status small.dag || :", r"complete +1/1")
    events = shell.type("htlease pool run htlease logs first")
    assert "001 execute" in events and "(fence 2)" in events, events


def _try_directories(shell: Shell) -> None:
    """What cannot be shared is refused, what is not shared is said, what is private stays so."""
    if os.geteuid() == 0:
        assert "is a home directory" in shell.type("htlease pool share ~", 1)
    assert "cannot be shared" in shell.type("htlease pool share /usr", 1)
    assert "needs a command" in shell.type("htlease pool run", 1)
    shell.type("mkdir ../other && cd ../other && touch secret && chmod 600 secret")
    assert "`htlease pool share .` shows it" in shell.type("htlease pool run pwd")
    shell.type("htlease pool share . && htlease pool run touch made")
    if os.geteuid() == 0:
        shell.type("htlease pool run cat secret", 1)
        owner = shell.type("stat -c '%U %a' . secret").split()
        assert owner == ["root", "2775", "root", "600"], owner
    shell.type("cd ../first")
