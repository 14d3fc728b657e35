"""Packages are installed after whoever installs some now, and what fails is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease_lab.pool import PoolError, debian

_APT = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *update*) ;; *) exit 0 ;; esac
[ -e {lock} ] || exit 0
{then}
echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 42 (apt-get)" >&2
exit 100
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "lock").touch()
    return tmp_path


def _apt_get(machine: Path, then: str) -> None:
    script = machine / "apt-get"
    script.write_text(_APT.format(log=machine / "log", lock=machine / "lock", then=then))
    script.chmod(0o755)


def test_another_program_that_installs_packages_is_waited_for_and_named(machine: Path) -> None:
    _apt_get(machine, then=f"rm {machine / 'lock'}")
    told: list[str] = []
    debian.install_packages(["mmdebstrap"], told.append)
    calls = (machine / "log").read_text().splitlines()
    assert [("update" in call, "mmdebstrap" in call) for call in calls] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert told[1:] == ["another program installs packages: waiting until it is done"]


def test_a_lock_that_is_held_too_long_is_told(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _apt_get(machine, then="")
    monkeypatch.setattr(debian, "_LOCK_SECONDS", 0)
    with pytest.raises(PoolError, match="held by process 42"):
        debian.install_packages(["mmdebstrap"], lambda _: None)
