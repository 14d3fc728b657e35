"""The command finds its server and token in one order, and never prints the token."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from htlease.client.connection import Connection, find_connection
from htlease.errors import BadConfig, InvalidField
from htlease_cli.parameters import parse_duration
from htlease_cli.tables import Table, duration_text, plain_lines

UID = os.geteuid()


def find(environ: dict[str, str], url: str | None = None, file: Path | None = None) -> Connection:
    return find_connection(url, file, {"HOME": "/nonexistent", **environ}, UID)


def source(environ: dict[str, str], file: Path | None = None) -> str | None:
    credential = find(environ, file=file).credential
    return credential.source if credential else None


def test_the_url_comes_from_option_environment_default() -> None:
    assert find({"HTLEASE_URL": "http://b"}, "http://a").url == "http://a"
    assert find({"HTLEASE_URL": "http://b"}).url == "http://b"
    assert find({}).url == "http://127.0.0.1:8620"


def test_tokens_are_looked_for_in_order(tmp_path: Path) -> None:
    def token_file(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"token-of-{path}\n")
        return str(path)

    option = token_file(tmp_path / "option")
    environ = {
        "HTLEASE_ADMIN_TOKEN_FILE": token_file(tmp_path / "named"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "BEARER_TOKEN": "t",
        "BEARER_TOKEN_FILE": token_file(tmp_path / "bearer"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    own = token_file(tmp_path / "state" / "htlease" / "admin.token")
    user = token_file(tmp_path / "run" / f"bt_u{UID}")
    assert source(environ, Path(option)) == option
    expected = [environ["HTLEASE_ADMIN_TOKEN_FILE"], own, "BEARER_TOKEN", str(tmp_path / "bearer")]
    expected.append(user)
    for taken, name in zip(
        expected,
        (
            "HTLEASE_ADMIN_TOKEN_FILE",
            "XDG_STATE_HOME",
            "BEARER_TOKEN",
            "BEARER_TOKEN_FILE",
            "XDG_RUNTIME_DIR",
        ),
        strict=True,
    ):
        assert source(environ) == taken
        del environ[name]
    assert source(environ) is None


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_token_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadConfig, match=str(file)):
        find({}, file=file)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800), ("1.5h", 5400)]
)
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1w", "-1h", "1h30m", "1 h", "infs", "\u0661h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidField, match="is not one like 90s, 15m, 1h or 7d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0d", "no time at all"),
        ("0.0s", "no time at all"),
        ("36501d", "more than 36500 days"),
        (f"{'9' * 400}s", "more than 36500 days"),
    ],
)
def test_a_duration_is_some_time_and_not_for_ever(text: str, why: str) -> None:
    with pytest.raises(InvalidField, match=why):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (604800, "7.0 d")],
)
def test_durations_are_told_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_plain_tables_are_aligned_and_mark_what_is_not_known() -> None:
    lines = plain_lines(Table(("A", "LONG", "C"), [("aaa", "", "c"), ("", "b", "")]))
    assert lines == ["A    LONG  C", "aaa  -     c", "-    b     -"]
