"""What a site's wrapper makes of a command line that leads into a container."""

from __future__ import annotations

import pytest

from htlease_wrapper.container import Container, container_of

SCRATCH = "/var/lib/condor/execute/dir_1"
RUNTIME = ("/usr/bin/apptainer", "-s", "exec", "-B", SCRATCH, "-C", "image")
HERE = {"_CONDOR_SCRATCH_DIR": SCRATCH, "APPTAINERENV__CONDOR_SCRATCH_DIR": SCRATCH}
AT_SRV = {**HERE, "APPTAINERENV__CONDOR_SCRATCH_DIR": "/srv"}


@pytest.mark.parametrize(
    ("environ", "executable", "cmd"),
    [
        (HERE, f"{SCRATCH}/a.sh", "/home/joe/a.sh"),
        (AT_SRV, "/srv//a.sh", "/home/joe/a.sh"),
        (HERE, "/usr/bin/true", "/usr/bin/true"),
    ],
)
def test_what_stands_before_the_executable_leads_in(
    environ: dict[str, str], executable: str, cmd: str
) -> None:
    found = container_of((*RUNTIME, executable, "a.sh", executable), cmd, environ)
    assert found is not None and found.entry == RUNTIME
    assert found.command(["sh", "./x"]) == (*RUNTIME, "sh", "./x")
    assert found.command(["./x", "y"]) == (*RUNTIME, f"{found.inside}/x", "y")
    assert found.command(["/bin/x"]) == (*RUNTIME, "/bin/x")


def test_an_executable_that_cannot_be_found_gives_no_way_in() -> None:
    for cmd in ("/home/joe/a.sh", None):
        found = container_of(RUNTIME, cmd, HERE)
        assert found is not None and found.entry is None


def test_no_job_of_a_container_is_taken_for_one() -> None:
    environ = {"_CONDOR_SCRATCH_DIR": SCRATCH, "APPTAINERENV_A": "b"}
    assert container_of((f"{SCRATCH}/a.sh",), "a.sh", environ) is None


def test_our_variables_are_handed_on_with_paths_as_they_are_within() -> None:
    container = Container("SINGULARITYENV_", SCRATCH, "/srv", RUNTIME)
    environ = {
        "HTLEASE_KEY": "w/s",
        "HTLEASE_DETAILS": f"{SCRATCH}/.htlease/details",
        "HTLEASE_SANDBOX": SCRATCH,
        "HTLEASE": f"{SCRATCH}0/htlease-ep.pyz",
        "HOME": SCRATCH,
    }
    assert container.handed_on(environ) == {
        "SINGULARITYENV_HTLEASE_KEY": "w/s",
        "SINGULARITYENV_HTLEASE_DETAILS": "/srv/.htlease/details",
        "SINGULARITYENV_HTLEASE_SANDBOX": "/srv",
        "SINGULARITYENV_HTLEASE": f"{SCRATCH}0/htlease-ep.pyz",
    }
