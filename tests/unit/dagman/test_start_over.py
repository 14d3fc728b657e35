"""What POST takes for proof, with HTCondor's commands played by scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease_dagman.scripts.queue_ad import queue_birthdate
from htlease_dagman.scripts.start_over import finding

JOB = "ap#12.0#1796117722"
AD: dict[str, str | int] = {"GlobalJobId": JOB, "JobUniverse": 5, "JobLeaseDuration": 2400}
SCHEDD = "<10.77.0.1:9618?sock=schedd_1_2>"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of commands, of which `condor_status` prints the file `schedd`."""
    address = tmp_path / "address"
    address.write_text(f"{SCHEDD}\n$CondorVersion: 23.9.6 $\n")
    for name, text in (
        ("condor_config_val", f'test "$1" = SCHEDD_ADDRESS_FILE && echo {address}'),
        ("condor_status", f"test \"$1 $2 $3\" = '-pool {SCHEDD} -schedd' && cat {tmp_path}/schedd"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def ad(tmp_path: Path) -> dict[str, str | int]:
    log = tmp_path / "nodes.log"
    entries = [f"00{number} (012.000.000) 2026-12-01 10:00:00 x\n...\n" for number in (0, 1, 5)]
    log.write_text("".join(entries))
    return {**AD, "DAGManNodesLog": str(log)}


@pytest.mark.parametrize(
    ("said", "born_at", "is_proof"),
    [
        ("JobQueueBirthdate = 1796117000\n", 1796117000, True),
        ("JobQueueBirthdate = 1796118000\n", 1796118000, False),
        ('Name = "ap"\n', None, False),
        ("", None, False),
        ("JobQueueBirthdate = 1\n\nJobQueueBirthdate = 2\n", None, False),
    ],
)
def test_the_nodes_log_counts_in_the_queue_that_gave_the_number(
    commands: Path, ad: dict[str, str | int], said: str, born_at: int | None, is_proof: bool
) -> None:
    (commands / "schedd").write_text(said)
    assert queue_birthdate() == born_at
    assert finding("12.0", ad).is_proof == is_proof


def test_without_htcondors_commands_nothing_is_known(
    tmp_path: Path, ad: dict[str, str | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue_birthdate() is None
    assert not finding("12.0", ad).is_proof
