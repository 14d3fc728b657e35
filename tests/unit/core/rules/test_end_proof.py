"""What proves that a start is over: each situation in which HTCondor was watched, and the verdict."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from htlease.condor import event_log
from htlease.condor.event_log import read_events, read_rotated
from htlease.rules.end_proof import Job, LogEvent, job_from, of_log, of_queue, of_startd

JOB = "ap.example.org#12.0#1796117722"
STARTD = "<10.77.0.12:9618?addrs=10.77.0.12-9618&alias=ep2&noUDP&sock=startd_111_f8b9>"
LATER_STARTD = STARTD.replace("111_f8b9", "112_03aa")
VANILLA = Job(5, False, True, STARTD)

#: Situation, what the log has of the job, whether that proves its end. `+4`: a 004 which says
#: that the job had terminated and was requeued.
LOGS = [
    # An end that the starter told.
    ("terminated", "0 1 5", True),
    ("terminated on the second start, the first was evicted", "0 1 4 1 5", True),
    ("terminated after an exchange of images and attributes", "0 1 6 33 6 5", True),
    ("terminated after a reconnect", "0 1 22 23 5", True),
    ("terminated after two reconnects", "0 1 22 23 22 23 5", True),
    ("terminated and requeued by its policy", "0 1 +4", True),
    ("suspended, continued, terminated", "0 1 10 11 5", True),
    # Where the starter was lost.
    ("cut off, lease over, removed", "0 1 22 24 4 9", False),
    ("cut off, lease over, held", "0 1 22 24 4 12", False),
    ("cut off, lease over, to start again", "0 1 22 24 4", False),
    ("cut off, lease over, another start at work", "0 1 22 24 1", False),
    ("cut off, removed by force", "0 1 22 9", False),
    ("cut off, not noticed, removed by force", "0 1 9", False),
    ("cut off, given up by the schedd", "0 1 22 9", False),
    ("lost once, found, lost again at the end", "0 1 22 23 22 5", False),
    ("lost and requeued", "0 1 22 +4", False),
    ("given up, then found all the same", "0 1 22 24 23 5", False),
    # What the schedd and the shadow write without the starter.
    ("removed, shadow away", "0 1 9", False),
    ("held while nothing is known of the start", "0 1 12", False),
    ("released before it was held", "0 1 13 4", False),
    ("vacated fast", "0 1 4", False),
    ("vacated fast and started again", "0 1 4 1", False),
    ("removed", "0 1 4 9", False),
    ("held", "0 1 4 12", False),
    ("shadow exception", "0 1 7", False),
    ("shadow exception and eviction", "0 1 7 4", False),
    ("removed while output came back", "0 1 4 9", False),
    # Not this start's.
    ("no start yet", "0", False),
    ("removed while idle", "0 9", False),
    ("an end without a start", "0 5", False),
    ("an earlier start ended, this one is at work", "0 1 5 1", False),
    ("an earlier job of the same number ended, after the queue was lost", "0 1 5 0", False),
    ("an earlier job of the same number ended, this one runs", "0 1 5 0 1", False),
    ("a later job of the same number ended, or is it this one", "0 1 0 1 5", False),
    ("a log that is not there", "", False),
]


def events(text: str) -> list[LogEvent]:
    return [LogEvent(int(word), word.startswith("+")) for word in text.split()]


@pytest.mark.parametrize(("log", "is_proof"), [row[1:] for row in LOGS], ids=[r[0] for r in LOGS])
def test_an_event_log_proves(log: str, is_proof: bool) -> None:
    found = of_log(events(log), VANILLA)
    assert found.is_proof == is_proof
    assert found.why


@pytest.mark.parametrize(
    ("job", "born_at", "is_proof"),
    [
        (JOB, 1796117721, True),
        (JOB, 1796117722, True),  # the first job of a queue
        (JOB, 1796117723, False),
        (JOB, None, False),
        ("ap.example.org#12.0", 1796117721, False),  # GLOBAL_JOB_ID_WITH_TIME = False
    ],
)
def test_a_schedd_that_lost_its_queue_knows_no_earlier_job(
    job: str, born_at: int | None, is_proof: bool
) -> None:
    found = of_queue(job, born_at)
    assert found.is_proof == is_proof
    assert found.why


@pytest.mark.parametrize(
    ("job", "is_proof"),
    [
        (VANILLA, True),
        (VANILLA._replace(startd=None), True),
        (VANILLA._replace(universe=10), True),
        (VANILLA._replace(universe=12, has_job_lease=False), True),
        (VANILLA._replace(universe=7, has_job_lease=False), True),
        (VANILLA._replace(has_job_lease=False), False),
        (VANILLA._replace(is_docker=True), False),
        (VANILLA._replace(universe=9), False),
        (VANILLA._replace(universe=11), False),
        (VANILLA._replace(universe=13), False),
        (VANILLA._replace(universe=None), False),
    ],
)
def test_the_log_of_some_jobs_proves_nothing(job: Job, is_proof: bool) -> None:
    assert of_log(events("0 1 5"), job).is_proof == is_proof


@pytest.mark.parametrize(
    ("slots", "changes", "is_proof"),
    [
        ([{"MyAddress": STARTD}], {}, True),
        ([{"MyAddress": STARTD}, {"MyAddress": STARTD, "GlobalJobId": "other"}], {}, True),
        ([{"MyAddress": STARTD}, {"MyAddress": STARTD, "GlobalJobId": JOB}], {}, False),
        ([{"MyAddress": LATER_STARTD}], {}, False),
        ([], {}, False),
        (None, {}, False),
        ([{"MyAddress": STARTD}], {"has_job_lease": False}, True),
        ([{"MyAddress": STARTD}], {"is_docker": True}, False),
        ([{"MyAddress": STARTD}], {"universe": 12}, False),
        ([{"MyAddress": STARTD}], {"universe": 11}, False),
        ([{"MyAddress": STARTD}], {"startd": None}, False),
    ],
)
def test_the_startd_itself_proves(
    slots: list[dict[str, object]] | None, changes: dict[str, object], is_proof: bool
) -> None:
    assert of_startd(JOB, VANILLA._replace(**changes), slots).is_proof == is_proof  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ad", "job"),
    [
        (
            {
                "JobUniverse": 5,
                "JobLeaseDuration": 2400,
                "LastPublicClaimId": f"{STARTD}#1796117720#1#...",
            },
            VANILLA,
        ),
        ({"JobUniverse": 5, "JobLeaseDuration": 0}, Job(5, False, False, None)),
        ({"JobUniverse": 5}, Job(5, False, False, None)),
        ({"JobUniverse": 5, "WantDocker": True}, Job(5, True, False, None)),
        ({"JobUniverse": 5, "WantContainer": True}, Job(5, True, False, None)),
        ({"JobUniverse": 5, "WantContainer": True, "WantSIF": True}, Job(5, False, False, None)),
        # A port without the shared port's name may be another startd's tomorrow.
        ({"JobUniverse": 5, "PublicClaimId": "<10.0.0.1:40123>#1#2"}, Job(5, False, False, None)),
        ({}, Job(None, False, False, None)),
    ],
)
def test_what_an_ad_says(ad: dict[str, object], job: Job) -> None:
    assert job_from(ad) == job


# ------------------------------------------------------------ logs as files


def entry(number: int, job: str = "012.000", body: str = "") -> str:
    return f"{number:03d} ({job}.000) 2026-12-01 10:00:00 What happened\n{body}...\n"


def test_the_events_of_one_job_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    requeued = "\t(0) Job terminated and was requeued\n"
    reason = "\t005 (012.000.000) is only a text\n005 (012.001.000) another's\n"
    log.write_text(
        entry(0)
        + entry(0, "112.000")
        + entry(1, body=reason)
        + entry(4, body=requeued)
        + entry(5, "012.010")
        + "001 (012.000.000) 2026-12-01 10:00:00 Job execut"
    )
    assert read_events(str(log), "12.0") == events("0 1 +4")
    assert read_events(str(log), "12.10") == events("5")


def test_a_large_log_is_read_by_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_text(entry(0) + entry(6, "001.000") * 200 + entry(1) + entry(6) * 50 + entry(5))
    monkeypatch.setattr(event_log, "_CHUNK_BYTES", 100)
    assert [event.number for event in read_events(str(log), "12.0")] == [0, 1, *[6] * 50, 5]
    monkeypatch.setattr(event_log, "READ_MAX_BYTES", 5000)
    assert [event.number for event in read_events(str(log), "12.0")] == [1, *[6] * 50, 5]


def test_an_entry_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(event_log, "_ENTRY_MAX_BYTES", 1000)
    log = tmp_path / "log"
    log.write_text(entry(0) + "x" * 100_000 + "\n...\n" + entry(1))
    assert read_events(str(log), "12.0") == events("0 1")


def test_rotated_logs_are_one(tmp_path: Path) -> None:
    log = tmp_path / "EventLog"
    (tmp_path / "EventLog.2").write_text(entry(0))
    (tmp_path / "EventLog.1").write_text(entry(1))
    log.write_text(entry(5))
    assert read_rotated(str(log), "12.0") == events("0 1 5")
    (tmp_path / "EventLog.old").write_text(entry(0) + entry(1))
    assert read_rotated(str(log), "12.0") == events("0 1 5")


def test_rotated_logs_are_read_to_the_last_for_an_earlier_job_of_the_number(tmp_path: Path) -> None:
    log = tmp_path / "EventLog"
    (tmp_path / "EventLog.1").write_text(entry(0) + entry(1))
    log.write_text(entry(0) + entry(1) + entry(5))
    assert read_rotated(str(log), "12.0") == events("0 1 0 1 5")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "absent"):
        with pytest.raises(OSError):
            read_events(str(path), "12.0")
