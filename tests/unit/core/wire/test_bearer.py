"""WLCG bearer-token discovery: the order, white space, what is passed over and what is an error."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease.wire.bearer import discovered

UID = os.geteuid()


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """All four places, each with a token that names it."""
    for name in ("named", "run/bt_u", "tmp/bt_u"):
        path = tmp_path / (f"{name}{UID}" if name.endswith("_u") else name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return {
        "BEARER_TOKEN": "variable",
        "BEARER_TOKEN_FILE": str(tmp_path / "named"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }


def found(environ: dict[str, str], tmp_path: Path) -> str | None:
    token = discovered(environ, UID, str(tmp_path / "tmp"))
    return token[1] if token else None


def test_the_four_steps_in_their_order(places: dict[str, str], tmp_path: Path) -> None:
    seen = [found(places, tmp_path)]
    for name in list(places):
        del places[name]
        seen.append(found(places, tmp_path))
    (tmp_path / "tmp" / f"bt_u{UID}").unlink()
    assert [*seen, found(places, tmp_path)] == ["variable", "named", "run/bt_u", "tmp/bt_u", None]


@pytest.mark.parametrize("empty", ["", " ", "\t\n\v\f\r "])
def test_what_is_empty_leaves_it_to_the_next_step(
    places: dict[str, str], tmp_path: Path, empty: str
) -> None:
    places["BEARER_TOKEN"] = empty
    assert found(places, tmp_path) == "named"
    (tmp_path / "named").write_text(empty)
    assert found(places, tmp_path) == "run/bt_u"


def test_white_space_around_a_token_is_no_part_of_it(
    places: dict[str, str], tmp_path: Path
) -> None:
    places["BEARER_TOKEN"] = "\r\n\v to-ken\t\f\n".replace(" ", "")
    assert found(places, tmp_path) == "to-ken"


@pytest.mark.parametrize("odd", ["to ken", "to\nken", "\x1ctoken", "token\x85", "tok\u00e9n"])
def test_what_is_no_token_ends_the_search_and_is_not_shown(
    places: dict[str, str], tmp_path: Path, odd: str
) -> None:
    places["BEARER_TOKEN"] = odd
    with pytest.raises(BadConfig, match="BEARER_TOKEN") as caught:
        found(places, tmp_path)
    assert odd not in str(caught.value)
    del places["BEARER_TOKEN"]
    (tmp_path / "named").write_text(odd)
    with pytest.raises(BadConfig, match=str(tmp_path / "named")) as caught:
        found(places, tmp_path)
    assert odd not in str(caught.value)


def test_a_named_file_that_is_not_there_leaves_it_to_the_next_step(
    places: dict[str, str], tmp_path: Path
) -> None:
    del places["BEARER_TOKEN"]
    (tmp_path / "named").unlink()
    assert found(places, tmp_path) == "run/bt_u"


def test_what_is_no_regular_file_keeps_nobody_waiting(
    places: dict[str, str], tmp_path: Path
) -> None:
    del places["BEARER_TOKEN"]
    (tmp_path / "named").unlink()
    os.mkfifo(tmp_path / "named")
    with pytest.raises(BadConfig, match="no regular file"):
        found(places, tmp_path)
    (tmp_path / "named").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "named"))
        with pytest.raises(BadConfig, match=str(tmp_path / "named")):
            found(places, tmp_path)


def test_a_token_that_another_user_put_there_is_not_taken(tmp_path: Path) -> None:
    # As anybody but root this test is the other user itself.
    mine, others = (4711, 4712) if UID == 0 else (UID + 1, UID)
    folder = tmp_path / "tmp"
    folder.mkdir()
    file = folder / f"bt_u{mine}"
    file.write_text("token")
    os.chown(file, others, -1)
    assert discovered({}, mine, str(folder)) is None
    assert discovered({"BEARER_TOKEN_FILE": str(file)}, mine, str(folder)) is not None, (
        "a file that the user names may be whose it wants"
    )
