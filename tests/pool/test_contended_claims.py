"""Many processes in running jobs claim one subjob at one instant: one of them gets it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

from tests.pool.lab import Lab, write_for_job

_CLAIM = Path(__file__).with_name("payloads") / "claim.py"
JOBS, CLAIMANTS_EACH, ROUNDS, INTERVAL_SECONDS = 8, 8, 200, 0.1


def test_of_64_claims_at_one_instant_one_is_granted_in_each_of_200_rounds(lab: Lab) -> None:
    directory = lab.pool.job_directory("claims")
    write_for_job(directory / "claim.py", _CLAIM.read_bytes(), 0o755)
    write_for_job(directory / "htlease.token", lab.token("claims").encode(), 0o600)
    server = urlsplit(lab.server.web_url)
    # Late enough for all of them to run by then.
    begin_at = time.time() + 40
    words = [server.hostname, server.port, "claims", begin_at, ROUNDS, INTERVAL_SECONDS]
    cluster = lab.pool.submit(
        f"""
        executable = claim.py
        arguments = {" ".join(map(str, [*words, CLAIMANTS_EACH]))}
        transfer_input_files = htlease.token
        should_transfer_files = YES
        request_memory = 64
        request_disk = 1
        output = out.$(Process)
        error = err.$(Process)
        log = log
        queue {JOBS}
        """,
        directory,
    )
    lab.pool.wait_for(
        lambda: len(lab.pool.events(directory / "log", 5)) == JOBS, f"cluster {cluster} to end", 240
    )
    starts = [event.time.timestamp() for event in lab.pool.events(directory / "log", 1)]
    assert len(starts) == JOBS and max(starts) < begin_at, "all ran before the first claim"
    answers: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for number in range(JOBS):
        for line in (directory / f"out.{number}").read_text().splitlines():
            place, status, code = line.split()
            answers[int(place)][(status, code)] += 1
    expected = {("200", "granted"): 1, ("409", "lease-still-live"): JOBS * CLAIMANTS_EACH - 1}
    assert len(answers) == ROUNDS
    assert {place: dict(found) for place, found in answers.items() if found != expected} == {}
    fences = {lab.server.subjob(f"claims/round-{place}")["fence"] for place in range(ROUNDS)}
    assert fences == {1}
