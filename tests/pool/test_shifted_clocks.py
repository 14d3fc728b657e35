"""Machines whose clocks are an hour off hand a lease over by the server's clock alone.

libfaketime is preloaded into all that starts on an execution point: starters, wrappers, payloads.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.lab import Lab

from htlease_lab.pool import Pool, debian

OFFSETS = {"ep1": "+3600", "ep2": "-3600"}
HOUR = datetime.timedelta(hours=1)


def _on(pool: Pool, ep: str, script: str) -> None:
    """Run a script where an execution point's processes see their files."""
    target = str(pool.daemon("condor_master", ep).pid)
    subprocess.run(
        ["nsenter", "--mount", "--pid", "--target", target, "sh", "-ec", script], check=True
    )


@pytest.fixture(scope="module")
def shifted(lab: Lab) -> Iterator[Lab]:
    """The clock of one execution point is an hour ahead, that of the other an hour behind."""
    debian.install_packages(["libfaketime"], print)
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    folder = lab.pool.directory / "faketime"
    folder.mkdir(mode=0o755, exist_ok=True)
    shutil.copy(library, folder)
    (folder / "ld.so.preload").write_text(f"{folder / library.name}\n")
    files = {"ld.so.preload": "ld.so.preload", "faketimerc": "{ep}.rc"}
    for ep, offset in OFFSETS.items():
        (folder / f"{ep}.rc").write_text(f"{offset}\n")
        for name, source in files.items():
            # An empty file in the root, which means nothing, is what the other is mounted on.
            over = f"touch /etc/{name}; mount --bind {folder}/{source.format(ep=ep)} /etc/{name}"
            _on(lab.pool, ep, over)
    yield lab
    for ep in OFFSETS:
        _on(lab.pool, ep, "umount /etc/ld.so.preload /etc/faketimerc")


def test_a_job_moves_from_a_clock_ahead_to_one_behind(shifted: Lab) -> None:
    pool = shifted.pool
    begin = datetime.datetime.now(datetime.timezone.utc)
    job = shifted.submit(
        "clocks",
        {"block": {"compute": [1]}},
        lines=[
            f'requirements = Machine == "{pool.ep_host("ep1")}"',
            # Waits of a program that is preloaded into are by the real clock, which has no offset.
            'environment = "FAKETIME_DONT_FAKE_MONOTONIC=1"',
        ],
    )
    job.wait_saved("compute")
    pool.run(["condor_qedit", job.job, "Requirements", f'Machine == "{pool.ep_host("ep2")}"'])
    pool.vacate(job.job)
    document = job.wait_status("complete")
    end = datetime.datetime.now(datetime.timezone.utc)
    assert job.wait_gone()["ExitCode"] == 0, job.explain()
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2], job.explain()
    hosts = [attempt["host"] for attempt in document["attempts"]]
    assert hosts == [pool.ep_host("ep1"), pool.ep_host("ep2")], job.explain()
    # What payloads saw shows that the clocks were off, and what was recorded that it did not matter.
    first, second = (
        datetime.datetime.fromtimestamp(
            job.told("start", "compute")[n]["clock"], datetime.timezone.utc
        )
        for n in (0, 1)
    )
    assert first - begin > HOUR * 0.9 and begin - second > HOUR * 0.9, (first, second, begin)
    times = [
        datetime.datetime.fromisoformat(event["at"].replace("Z", "+00:00"))
        for event in job.history()
    ]
    assert times == sorted(times)
    assert begin - HOUR / 60 < times[0] and times[-1] < end + HOUR / 60, job.explain()
