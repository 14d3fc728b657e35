"""Behind a route to a batch system that is not HTCondor: blahp as it is, Slurm as a stand-in.

Nothing there counts starts, and no job ad travels along: what orders them is the server's epoch,
and within one submission the end of the lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.agent import site_directory
from tests.pool.lab import Lab, write_for_job
from tests.pool.routing import found, routed_by, submit_routed

SLURM = Path(__file__).with_name("payloads") / "slurm.py"
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "srequeue")

CONFIG = """
JOB_ROUTER_ROUTE_NAMES = Slurm
JOB_ROUTER_ROUTE_Slurm @=end
  TargetUniverse = 9
  GridResource = "batch slurm"
  REQUIREMENTS RouteTo =?= "slurm"
  EVALSET Environment mergeEnvironment(Environment ?: "", strcat("HTLEASE_KEY=", HTLeaseKey))
@end
BATCH_GAHP = {gahp}
GRIDMANAGER_JOB_PROBE_INTERVAL = 3
GRIDMANAGER_JOB_PROBE_RATE = 50
"""


@pytest.fixture(scope="module")
def slurm(lab: Lab) -> Iterator[Path]:
    """A route to the stand-in; its commands are in the directory."""
    place = site_directory(lab) / "slurm"
    place.mkdir(mode=0o755)
    (place / "jobs").mkdir()
    (place / "jobs").chmod(0o777)
    write_for_job(place / "slurm.py", SLURM.read_bytes(), 0o755)
    for command in COMMANDS:
        (place / command).symlink_to("slurm.py")
    libexec = place / "blahp"
    lab.pool.run(["cp", "-r", "/usr/libexec/blahp", str(libexec)], as_root=True)
    # Debian's 23.9.6 calls what Python 3.12 took away, and then knows the state of no job.
    module = libexec / "blah.py"
    module.write_text(module.read_text().replace(".readfp(", ".read_file("))
    shipped = lab.pool.run(["cat", "/etc/blah.config"]).stdout
    own = f"slurm_binpath={place}\nblah_libexec_directory={libexec}\n"
    (place / "blah.config").write_text(f"{shipped}\n{own}")
    gahp = place / "batch_gahp"
    gahp.write_text(
        f'#!/bin/sh\nBLAHPD_CONFIG_LOCATION={place}/blah.config exec /usr/bin/blahpd "$@"\n'
    )
    gahp.chmod(0o755)
    with routed_by(lab, CONFIG.format(gahp=gahp)):
        yield place


def test_restarts_that_no_counter_shows_are_ordered_by_the_server(lab: Lab, slurm: Path) -> None:
    job = submit_routed(
        lab,
        "batch",
        {"block": {"compute": [1, 2, 3]}, "block_seconds": 25},
        lines=['My.RouteTo = "slurm"'],
    )
    first = job.wait_copy()
    job.source.wait_told("alive", "compute", attempt=1)
    lab.wait_for(lambda: job.source.key in found(lab, "4711"), "the batch system's ID", 60)
    lab.pool.run([str(slurm / "srequeue"), "4711"])
    job.source.wait_told("alive", "compute", attempt=2)
    starts = job.source.told("start", "compute")
    assert [note["details"] for note in starts] == [None, "compute of attempt 1"]
    lab.pool.remove(f"{first['ClusterId']}.0")
    second = job.wait_copy(after=first["ClusterId"])
    lab.wait_for(lambda: job.source.key in found(lab, "4712"), "the next one's ID", 60)
    job.source.wait_status("complete")
    assert job.epochs() == [1, 1, 2], job.source.explain()
    assert [grant["fence"] for grant in job.source.grants()] == [1, 2, 3]
    ad = job.wait_final(180)
    assert ad["HTLeaseState"] == "complete", job.source.explain()
    for identifier in (
        *(ad["GlobalJobId"], first["GlobalJobId"], second["GlobalJobId"]),
        *("4711", "4712", second["HTLeaseSource"]),
    ):
        assert job.source.key in found(lab, identifier), identifier
    assert len(job.source.told("end", "register")) == 1
