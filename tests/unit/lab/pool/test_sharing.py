"""Which directories a pool will not share."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease_lab.pool import PoolError, sharing


@pytest.mark.parametrize("path", ["/", "/usr", "/no/such/directory", "/etc/passwd"])
def test_what_no_machine_can_do_without_is_not_shared(path: str) -> None:
    with pytest.raises(PoolError, match=f"{path} cannot be shared"):
        sharing.check(Path(path))


def test_a_home_directory_is_not_opened_to_others_but_a_folder_in_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "first"
    folder.mkdir()
    with pytest.raises(PoolError, match="share a folder below it"):
        sharing.check(tmp_path)
    assert sharing.check(folder) == folder
    monkeypatch.chdir(folder)
    assert sharing.check(Path()) == folder
