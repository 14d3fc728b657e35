"""The agent's own token against a real server: replaced in its file while the agent runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.serving import ServerProcess

from htlease.client.client import LeaseServer
from htlease.client.connection import find_connection
from htlease.errors import Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_agent.server_token import RenewingTransport


def _put_operator_token(server: ServerProcess, path: Path) -> str:
    """Write a new token into a file and return its ID."""
    made = server.ask("POST", "tokens", {"role": "operator"})
    path.write_text(made["token"])
    return str(made["id"])


def test_a_revoked_token_is_replaced_from_its_file(
    server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "htlease_agent")
    path, key = tmp_path / "operator.token", SubjobKey("agent-credential", "s")
    first = _put_operator_token(server, path)
    transport = RenewingTransport(lambda: find_connection(server.url, path, {}, 0), via="chirp ap")
    agent = LeaseServer(transport, server.url)
    agent.command(key, m.Enroll("ap#1.0#1"), "epoch")

    server.ask("POST", "tokens/revoke", {"id": first})
    for _ in range(2):  # there is no other, and then none at all
        with pytest.raises(Refused) as refused:
            agent.subjob(key)
        assert refused.value.code == "unauthorized"
        path.unlink(missing_ok=True)
    second = _put_operator_token(server, path)
    assert agent.command(key, m.Enroll("ap#2.0#1"), "epoch")["epoch"] == 2

    assert [(event["actor"], event["via"]) for event in server.history(str(key))] == [
        (f"token:{first} (operator admin)", "chirp ap"),
        (f"token:{second} (operator admin)", "chirp ap"),
    ]
    assert "does not exist" in caplog.text and str(path) in caplog.messages[-1]
    assert path.read_text() not in caplog.text
