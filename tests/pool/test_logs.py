"""`htlease logs` on a real job that was restarted: server, event log and outputs together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.pool.dag import Dag
from tests.pool.lab import Lab

from htlease_lab.pool import Pool

_LINES = ("output = out.$$([NumJobStarts])", "error = err.$$([NumJobStarts])")
_KEPT = "when_to_transfer_output = ON_EXIT_OR_EVICT"
#: Says which start it is before it does what the test wants.
_SAYING = b"""#!/bin/sh
echo "output of attempt $HTLEASE_ATTEMPT_NUMBER"
exec ./phase.py
"""
_PLAN = """\
[[phase]]
name = "compute"
run = ["./saying.sh"]
restart = "resume"
"""


def logs(pool: Pool, lab: Lab, *arguments: str) -> str:
    token_file = pool.directory / "admin.token"
    token_file.touch(mode=0o600)
    token_file.write_text(lab.server.admin_token)
    environ = {
        **os.environ,
        **pool.client_env(),
        "HTLEASE_URL": lab.server.url,
        "HTLEASE_ADMIN_TOKEN_FILE": str(token_file),
    }
    htlease = Path(sys.executable).with_name("htlease")
    done = subprocess.run(
        [htlease, "logs", *arguments], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_parts_of_a_restarted_job_are_collated_by_time_and_start(lab: Lab) -> None:
    job = lab.submit(
        "logs",
        {"block": {"compute": [1]}},
        plan=_PLAN,
        lines=(*_LINES, _KEPT),
        files={"saying.sh": _SAYING},
    )
    job.wait_saved("compute")
    lab.pool.vacate(job.job)
    job.wait_gone()
    workflow, subjob = job.key.split("/")
    text = logs(lab.pool, lab, workflow)
    lines = [line for line in text.splitlines() if line[:2] == "20"]
    assert [line[:19] for line in lines] == sorted(line[:19] for line in lines), text
    whats = [line.split("  ", 2)[2] for line in lines]

    def at(what: str, start: int) -> int:
        return next(
            index
            for index, told in enumerate(whats)
            if what in told and told.split()[0] == str(start)
        )

    assert at("got the lease", 1) < at("gave the lease up", 1) < at("reclaimed the lease", 2), text
    assert at("001 execute", 1) < at("004 job evicted", 1) < at("001 execute", 2), text
    assert f"== {subjob}, stdout of start 2: {job.directory}/out.1\noutput of attempt 2" in text

    only = logs(lab.pool, lab, workflow, "--node", subjob, "--attempt", "2")
    assert "reclaimed the lease" in only
    assert "got the lease" not in only and "004 job evicted" not in only


def test_a_job_that_knows_nothing_of_htlease_is_shown_with_its_dags_event_log(lab: Lab) -> None:
    dag = Dag(lab, "plain", ["JOB A plain.sub"])
    dag.write(
        "plain.sub",
        'executable = /bin/echo\narguments = "said by a plain job"\noutput = $(JOB).out\n'
        "should_transfer_files = YES\nrequest_memory = 16\nrequest_disk = 1\nqueue\n",
    )
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    text = logs(lab.pool, lab, dag.workflow)
    assert "005 job terminated" in text
    assert f"== A, stdout of the last start: {dag.directory}/A.out\nsaid by a plain job" in text
    assert "got the lease" in text  # POST
    assert "event log" not in text
