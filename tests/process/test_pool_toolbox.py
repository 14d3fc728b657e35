"""The htlease that a pool's access point gets is a whole one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from htlease_lab.pool import toolbox


def test_what_is_placed_runs_without_the_packages_of_this_checkout(tmp_path: Path) -> None:
    placed = tmp_path / "htlease"
    for _ in range(2):  # the second takes the place of the first
        toolbox.place(placed, Path("/"))

    def run(*words: str) -> str:
        done = subprocess.run(
            [placed / "bin" / words[0], *words[1:]],
            env={"PATH": os.defpath, "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import sys, htlease_cli, aiohttp; print(htlease_cli.__file__, aiohttp.__file__)"
    assert all(Path(path).is_relative_to(placed) for path in run("python3", "-c", where).split())
    assert "submit" in run("htlease", "--help")
    assert "agent" in run("htlease", "agent", "--help")
    assert (placed / "bin" / "htlease-dag").is_file()
    pyz = placed / "share" / "htlease" / "htlease-ep.pyz"
    assert "htlease-ep" in run("python3", str(pyz), "--version")
    assert (placed / "share/htlease/condor/access-point.conf").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["htlease"]
