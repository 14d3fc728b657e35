"""Where a token is looked for, in which order."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease.execution.credentials import Token, find_token, keep_renewed

UID = os.geteuid()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Every file that may hold a token, each holding its own name."""
    monkeypatch.chdir(tmp_path)
    files = {
        "creds": tmp_path / "creds" / "htlease.use",
        "sandbox": tmp_path / "sandbox" / "htlease.token",
        "current": tmp_path / "htlease.token",
        "named": tmp_path / "named-token",
        "runtime": tmp_path / "run" / f"bt_u{UID}",
    }
    for name, path in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n")
    return files


def test_the_order_of_discovery(places: dict[str, Path], tmp_path: Path) -> None:
    environ = {
        "_CONDOR_CREDS": str(tmp_path / "creds"),
        "BEARER_TOKEN": "variable",
        "BEARER_TOKEN_FILE": str(places["named"]),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    seen = []
    for name in ("creds", "sandbox", "current", "variable", "named", "runtime"):
        token = find_token(environ, tmp_path / "sandbox", UID)
        assert token is not None
        seen.append((token.text, token.found_at))
        if name == "variable":
            del environ["BEARER_TOKEN"]
        else:
            places[name].unlink()
    assert seen == [
        ("creds", str(places["creds"])),
        ("sandbox", str(places["sandbox"])),
        ("current", str(places["current"])),
        ("variable", "BEARER_TOKEN"),
        ("named", str(places["named"])),
        ("runtime", str(places["runtime"])),
    ]
    assert find_token(environ, tmp_path / "sandbox", UID) is None


def test_an_empty_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "htlease.token").write_text(" \n")
    token = find_token({"BEARER_TOKEN": "x"}, tmp_path, UID)
    assert token is not None and token.found_at == "BEARER_TOKEN"


def test_a_file_that_is_no_text_ends_the_search(tmp_path: Path) -> None:
    (tmp_path / "htlease.token").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match=str(tmp_path / "htlease.token")):
        find_token({"BEARER_TOKEN": "x"}, tmp_path, UID)


def test_what_cannot_be_a_header_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "htlease.token").write_text("my\nsecret")
    with pytest.raises(BadConfig) as caught:
        find_token({}, tmp_path, UID)
    assert str(tmp_path / "htlease.token") in str(caught.value)
    assert "secret" not in str(caught.value)


def _token(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def test_what_the_server_gave_last_is_used_as_long_as_it_lasts_longer(tmp_path: Path) -> None:
    of_job = {"workflow": "w", "subjob": "s"}
    first, fresh = _token(**of_job, exp=100), _token(**of_job, exp=200)
    (tmp_path / "htlease.token").write_text(first)
    folder = tmp_path / ".htlease"
    folder.mkdir()

    def used() -> str | None:
        token = find_token({}, tmp_path, UID)
        return token.text if token else None

    keep_renewed(folder, Token(fresh, "a renewal"))
    assert (folder / "renewed-token").stat().st_mode & 0o777 == 0o600
    assert used() == fresh
    (tmp_path / "htlease.token").write_text(_token(**of_job, exp=300))
    assert used() == _token(**of_job, exp=300), "HTCondor, or a person, brought a newer one"
    (tmp_path / "htlease.token").write_text(_token(workflow="other", subjob="s", exp=100))
    assert used() == _token(workflow="other", subjob="s", exp=100), "it is for something else"
    (tmp_path / "htlease.token").write_text("opaque")
    assert used() == "opaque"
