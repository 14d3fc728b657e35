"""What is seen of an agent from outside: that it answers, that it does not, and why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.process.execution import wait_for
from tests.serving import ServerProcess

from htlease.condor.condor_config import CondorConfig
from htlease_cli.doctor.agent_state import AgentState, agent_state

CONFIG = CondorConfig(Path("/etc/condor/condor_config"))


def start(server: ServerProcess, directory: Path, *first: Path) -> subprocess.Popen[bytes]:
    """Start an agent as condor_master would; `first` directories come before its packages."""
    token = directory / "admin.token"
    token.write_text(server.operator_token())
    token.chmod(0o600)
    path = [str(one) for one in first] + [one for one in sys.path if one]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "htlease_cli.cli", "agent", "--server", server.url),
            *("--admin-token-file", str(token), "--state-dir", str(directory / "state")),
            *("--socket", str(directory / "agent"), "--log", str(directory / "log")),
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seen(directory: Path) -> AgentState:
    arguments = f"agent --socket={directory}/agent --state-dir=/x --log={directory}/log"
    values = {"HTLEASE_AGENT": "/usr/bin/htlease", "HTLEASE_AGENT_ARGS": arguments}
    found = agent_state(CONFIG, values)
    assert found is not None
    return found


def test_a_agent_that_runs_answers_and_logs(server: ServerProcess, tmp_path: Path) -> None:
    agent = start(server, tmp_path)
    try:
        wait_for(lambda: (tmp_path / "agent").exists(), "the agent's socket")
        assert seen(tmp_path).is_answering
        assert "tokens at" in (tmp_path / "log").read_text()
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    assert (tmp_path / "agent").exists(), "a killed agent leaves its socket"
    assert not seen(tmp_path).is_answering


def test_a_agent_without_its_packages_says_so_in_its_log(
    server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "aiohttp.py").write_text("raise ImportError(name='aiohttp')\n")
    assert start(server, tmp_path, tmp_path / "first").wait(30) != 0
    found = seen(tmp_path)
    assert not found.is_answering
    assert "pip install 'htlease[agent]'" in found.last_words


def test_nobody_looks_where_no_agent_is_to_be() -> None:
    assert agent_state(CONFIG, {}) is None
    image = CondorConfig(Path("/mnt/etc/condor/condor_config"), Path("/mnt"))
    assert agent_state(image, {"HTLEASE_AGENT": "/usr/bin/htlease"}) is None
