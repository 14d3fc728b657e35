"""What documents and errors of the Globus Transfer API are taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from htlease.errors import BadConfig
from htlease_dagman.staging.backends.globus import GlobusBackend, globus_backend, status_of
from htlease_dagman.staging.staging_file import read_staging_file
from htlease_dagman.staging.transfer import NeedsPerson, State


@pytest.mark.parametrize(
    ("task", "state", "said"),
    [
        ({"status": "ACTIVE", "nice_status": "OK"}, State.RUNNING, "OK"),
        ({"status": "SUCCEEDED"}, State.DONE, ""),
        (
            {"status": "INACTIVE", "task_id": "t1", "nice_status_details": "credential expired"},
            State.NEEDS_ACTION,
            "https://app.globus.org/activity/t1 (credential expired)",
        ),
        (
            {"status": "FAILED", "fatal_error": {"code": "PERMISSION_DENIED"}},
            State.FATAL,
            "PERMISSION_DENIED",
        ),
        (
            {"status": "FAILED", "fatal_error": {"code": "TIMEOUT", "description": "slow"}},
            State.RETRYABLE,
            "TIMEOUT: slow",
        ),
        ({"status": "FAILED", "nice_status": "CANCELED"}, State.FATAL, "CANCELED"),
    ],
)
def test_what_a_task_document_means(task: dict[str, Any], state: State, said: str) -> None:
    status = status_of(task)
    assert (status.state, status.is_unclear) == (state, False)
    assert said in status.text


@pytest.mark.parametrize("task", [{}, {"status": None}, {"status": "SOMETHING NEW"}])
def test_a_status_that_is_not_known_keeps_waiting(task: dict[str, Any]) -> None:
    status = status_of(task)
    assert (status.state, status.is_unclear) == (State.RUNNING, True)


def test_counts_are_kept_as_text() -> None:
    counts = status_of({"status": "ACTIVE", "bytes_transferred": 7, "files_transferred": 0}).counts
    assert counts == {"bytes_transferred": "7", "files_transferred": "0"}


def test_a_credential_that_is_missing_asks_for_it(tmp_path: Path) -> None:
    backend = GlobusBackend(tmp_path / "none", "http://127.0.0.1:9")
    with pytest.raises(NeedsPerson, match="none: No such file"):
        backend.poll("t1")


@pytest.mark.parametrize("text", ["{", '{"refresh_token": "hush"}'])
def test_a_credential_of_another_kind_asks_without_showing_it(tmp_path: Path, text: str) -> None:
    credential = tmp_path / "credential"
    credential.write_text(text)
    credential.chmod(0o600)
    with pytest.raises(NeedsPerson) as caught:
        GlobusBackend(credential, "http://127.0.0.1:9").poll("t1")
    assert "refresh_token and client_id" in str(caught.value) and "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('credential = "token"\n', "", 1, "has no credential"),
        ('credential = "token"', 'secret = "x"', 3, "not known"),
        ('collection = "c2"\n', "", 7, "has no collection"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    text = """\
[service]
backend = "globus"
credential = "token"
[places.a]
path = "/a"
collection = "c1"
[places.b]
path = "/b"
collection = "c2"
[stage-in]
from = "a"
to = "b"
files = ["x"]
[compute]
submit = "c.sub"
"""
    (tmp_path / "c.sub").write_text("queue\n")
    path = tmp_path / "staging.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(BadConfig) as caught:
        globus_backend(read_staging_file(path))
    assert f"{path}:{line}: " in str(caught.value) and said in str(caught.value)
