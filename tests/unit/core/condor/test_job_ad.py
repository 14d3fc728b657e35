"""Literal attributes of job ads, and what follows from them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from htlease.condor.job_ad import (
    Ad,
    checkpoint_exit_code,
    eviction_signals,
    evidence_of,
    key_of_submission,
    leaves_nothing,
    parse_ad,
    place_of,
    read_ad,
)
from htlease.rules.attempt import Evidence, Place, SubjobKey

#: As the starter of 23.9.6 wrote it for the second start of a job, shortened.
SECOND_START = """\
ClusterId = 9
GlobalJobId = "ap.dev.pool#9.0#1795232600"
JobUniverse = 5
NumJobStarts = 1
NumShadowStarts = 2
ProcId = 0
PublicClaimId = "<10.77.14.12:9618?addrs=10.77.14.12-9618&alias=ep2&sock=startd_109>#1795232539#7#..."
RemoteHost = "slot1_1@ep2.dev.pool"
Requirements = (TARGET.Arch == "X86_64") && (TARGET.OpSys == "LINUX")
ShadowBday = 1795232710
SuccessCheckpointExitCode = 85
"""


def _ad(text: str) -> Ad:
    return Ad("/scratch/.job.ad", parse_ad(text))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A = 3", 3),
        ("A = -3", -3),
        ("A = 2.5", 2.5),
        ("A = true", True),
        ("A = FALSE", False),
        ('A = "text"', "text"),
        (r'A = "quote \" backslash \\ tab \t"', 'quote " backslash \\ tab \t'),
        ('A = ""', ""),
        ("  A=3  ", 3),
        ("A = undefined", None),
        ("A = B + 1", None),
        ('A = "x" == "y"', None),
        ('A = strcat("x", "y")', None),
        ("not an attribute", None),
        ('A = "half', None),
        ("", None),
    ],
)
def test_only_literals_are_read(line: str, value: object) -> None:
    assert parse_ad(line).get("a") == value


def test_attribute_names_have_no_case() -> None:
    assert _ad("NUMJOBSTARTS = 4").count("NumJobStarts") == 4


@pytest.mark.parametrize("line", ["A = -1", "A = true", "A = 1.5", 'A = "1"'])
def test_a_count_is_a_whole_number_that_is_not_negative(line: str) -> None:
    assert _ad(line).count("A") is None


def test_a_start_is_numbered_one_more_than_the_ad_says() -> None:
    evidence, missing = evidence_of(_ad(SECOND_START), sandbox_seq=1)
    assert evidence == Evidence(2, 2, 1795232710, 1)
    assert missing == ()


def test_a_missing_counter_is_named_and_its_consequence_said() -> None:
    evidence, missing = evidence_of(_ad("NumShadowStarts = 2"), sandbox_seq=1)
    assert evidence.job_starts is None
    assert missing == (
        "/scratch/.job.ad has no NumJobStarts: this start is ordered by the other counters alone",
    )
    _, missing = evidence_of(_ad(""), sandbox_seq=1)
    assert [sentence.partition(": ")[2] for sentence in missing] == [
        "this start cannot be ordered and waits for the end of an earlier lease"
    ] * 2


def test_where_no_shadow_starts_nothing_is_said_of_its_starts() -> None:
    evidence, missing = evidence_of(_ad("JobUniverse = 7\nNumJobStarts = 0"), sandbox_seq=1)
    assert (evidence.shadow_starts, missing) == (None, ())


def test_without_an_ad_only_the_sandbox_counts() -> None:
    evidence, missing = evidence_of(None, sandbox_seq=3)
    assert evidence == Evidence(sandbox_seq=3)
    assert "there is no job ad" in missing[0]


def test_the_startd_instance_is_the_claim_id_before_the_claims_number() -> None:
    machine = _ad('Name = "slot1_1@ep2.dev.pool"\nMachine = "ep2.dev.pool"')
    place = place_of(_ad(SECOND_START), machine)
    assert place == Place(
        "ep2.dev.pool",
        "slot1_1@ep2.dev.pool",
        "<10.77.14.12:9618?addrs=10.77.14.12-9618&alias=ep2&sock=startd_109>#1795232539",
    )
    later = place_of(_ad(SECOND_START.replace("#7#...", "#8#...")), machine)
    assert later.is_same_slot_as(place)


def test_the_local_universe_has_no_claim_and_hence_no_proof() -> None:
    place = place_of(_ad("JobUniverse = 12"), None)
    assert not place.is_same_slot_as(place)


@pytest.mark.parametrize(
    ("global_job_id", "key"),
    [
        ("ap1#42.3#1795225431", SubjobKey("ap1-42-1795225431", "3")),
        ("me@ap1.x.org#42.0#17", SubjobKey("me@ap1.x.org-42-17", "0")),
        ("odd name#é#42.0#17", SubjobKey("odd-name---42-17", "0")),
        (f"{'x' * 300}#42.0#17", SubjobKey("x" * 194 + "-42-17", "0")),
        ("ap1#42#17", None),
        ("42.0", None),
        ("", None),
    ],
)
def test_a_submission_gives_a_key(global_job_id: str, key: SubjobKey | None) -> None:
    assert key_of_submission(global_job_id) == key


def test_the_checkpoint_exit_code_is_found_under_both_names() -> None:
    assert checkpoint_exit_code(_ad(SECOND_START)) == 85
    assert checkpoint_exit_code(_ad("CheckpointExitCode = 3")) == 3
    assert checkpoint_exit_code(_ad("")) is None
    assert checkpoint_exit_code(None) is None


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ('KillSig = "SIGUSR1"', signal.SIGUSR1),
        ('RemoveKillSig = "sigint"', signal.SIGINT),
        ("HoldKillSig = 12", signal.SIGUSR2),
    ],
)
def test_the_ad_may_name_other_eviction_signals(line: str, number: int) -> None:
    assert eviction_signals(_ad(line)) == {signal.SIGTERM, number}


@pytest.mark.parametrize("line", ["", 'KillSig = "SIG_DFL"', 'KillSig = "x"', "KillSig = 4711"])
def test_term_is_always_one_and_nonsense_is_ignored(line: str) -> None:
    assert eviction_signals(_ad(line)) == {signal.SIGTERM}


def test_an_ad_that_cannot_be_read_is_no_ad(tmp_path: Path) -> None:
    assert read_ad(tmp_path / "nosuch") is None
    assert read_ad(tmp_path) is None
    (tmp_path / "odd").write_bytes(b'A = 1\nB = "\xff"\n')
    ad = read_ad(tmp_path / "odd")
    assert ad is not None and ad.count("A") == 1


@pytest.mark.parametrize(
    ("line", "is_proof"),
    [
        ("JobUniverse = 5", True),
        ("JobUniverse = 12", False),
        ("WantDocker = true", False),
        ("WantContainer = true\nWantDockerImage = true", False),
        ("WantContainer = true\nWantSIF = true", True),
        ("WantContainer = true\nWantSandboxImage = true", True),
    ],
)
def test_a_slot_proves_nothing_where_its_starter_is_not_the_jobs_parent(
    line: str, is_proof: bool
) -> None:
    machine = _ad('Machine = "ep1"\nName = "slot1_1@ep1"')
    place = place_of(_ad(f"{SECOND_START}\n{line}"), machine)
    assert place.is_same_slot_as(place) == is_proof


@pytest.mark.parametrize(
    ("lines", "is_all"),
    [
        ('ShouldTransferFiles = "NO"\nOnExitRemove = true\nOnExitHold = false', True),
        ("JobUniverse = 12\nOnExitRemove = true\nOnExitHold = false", True),
        ('ShouldTransferFiles = "YES"\nOnExitRemove = true\nOnExitHold = false', False),
        ('ShouldTransferFiles = "IF_NEEDED"\nOnExitRemove = true\nOnExitHold = false', False),
        (
            'ShouldTransferFiles = "NO"\nOnExitRemove = NumJobCompletions > 3\nOnExitHold = false',
            False,
        ),
        ('ShouldTransferFiles = "NO"\nOnExitRemove = true\nOnExitHold = ExitCode == 0', False),
        ('ShouldTransferFiles = "NO"', True),
        ("", False),
    ],
)
def test_which_jobs_are_done_when_they_exit_0(tmp_path: Path, lines: str, is_all: bool) -> None:
    path = tmp_path / ".job.ad"
    path.write_text(f"ClusterId = 1\n{lines}\n")
    assert leaves_nothing(read_ad(path)) == is_all
