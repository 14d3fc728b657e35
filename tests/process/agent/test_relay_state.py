"""What is seen of a relay from outside: that it answers, that it does not, and why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.process.execution import wait_for
from tests.serving import ServerProcess

from htlease.condor.condor_config import CondorConfig
from htlease_cli.doctor.agent_state import RelayState, relay_state

CONFIG = CondorConfig(Path("/etc/condor/condor_config"))


def start(server: ServerProcess, directory: Path, *first: Path) -> subprocess.Popen[bytes]:
    """Start a relay as condor_master would; `first` directories come before its packages."""
    token = directory / "admin.token"
    token.write_text(server.operator_token())
    token.chmod(0o600)
    path = [str(one) for one in first] + [one for one in sys.path if one]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "htlease_cli.cli", "relay", "--server", server.url),
            *("--admin-token-file", str(token), "--state-dir", str(directory / "state")),
            *("--socket", str(directory / "relay"), "--log", str(directory / "log")),
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seen(directory: Path) -> RelayState:
    arguments = f"relay --socket={directory}/relay --state-dir=/x --log={directory}/log"
    values = {"HTLEASE_RELAY": "/usr/bin/htlease", "HTLEASE_RELAY_ARGS": arguments}
    found = relay_state(CONFIG, values)
    assert found is not None
    return found


def test_a_relay_that_runs_answers_and_logs(server: ServerProcess, tmp_path: Path) -> None:
    relay = start(server, tmp_path)
    try:
        wait_for(lambda: (tmp_path / "relay").exists(), "the relay's socket")
        assert seen(tmp_path).is_answering
        assert "tokens at" in (tmp_path / "log").read_text()
    finally:
        relay.send_signal(signal.SIGKILL)
        relay.wait()
    assert (tmp_path / "relay").exists(), "a killed relay leaves its socket"
    assert not seen(tmp_path).is_answering


def test_a_relay_without_its_packages_says_so_in_its_log(
    server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "aiohttp.py").write_text("raise ImportError(name='aiohttp')\n")
    assert start(server, tmp_path, tmp_path / "first").wait(30) != 0
    found = seen(tmp_path)
    assert not found.is_answering
    assert "pip install 'htlease[relay]'" in found.last_words


def test_nobody_looks_where_no_relay_is_to_be() -> None:
    assert relay_state(CONFIG, {}) is None
    image = CondorConfig(Path("/mnt/etc/condor/condor_config"), Path("/mnt"))
    assert relay_state(image, {"HTLEASE_RELAY": "/usr/bin/htlease"}) is None
