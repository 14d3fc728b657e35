"""Where a token is looked for, in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_wrapper.credentials import find_token


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Every file that may hold a token, each holding its own name."""
    monkeypatch.chdir(tmp_path)
    files = {
        "creds": tmp_path / "creds" / "htlease.use",
        "sandbox": tmp_path / "sandbox" / "htlease.token",
        "current": tmp_path / "htlease.token",
        "named": tmp_path / "named-token",
        "runtime": tmp_path / "run" / "bt_u4711",
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
        token = find_token(environ, tmp_path / "sandbox", 4711)
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
    assert find_token(environ, tmp_path / "sandbox", 4711) is None


def test_an_empty_or_unreadable_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "htlease.token").write_text(" \n")
    token = find_token({"BEARER_TOKEN": "x"}, tmp_path, os.getuid())
    assert token is not None and token.found_at == "BEARER_TOKEN"
    (tmp_path / "htlease.token").write_bytes(b"\xff\xfe")
    token = find_token({"BEARER_TOKEN": "x"}, tmp_path, os.getuid())
    assert token is not None and token.found_at == "BEARER_TOKEN"


def test_what_cannot_be_a_header_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "htlease.token").write_text("my\nsecret")
    with pytest.raises(BadConfig) as caught:
        find_token({}, tmp_path, 4711)
    assert str(tmp_path / "htlease.token") in str(caught.value)
    assert "secret" not in str(caught.value)
