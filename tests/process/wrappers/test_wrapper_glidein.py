"""Pilots' own wrappers, which start a job in an image, in front of our wrapper and behind it.

As GlideinWMS and the pilots of the OSPool do it: PIDs of its own, the scratch directory at `/srv`,
and nothing of the environment but what the script hands on.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.process.execution import NewSandbox, Sandbox
from tests.serving import ServerProcess

from htlease_lab.pool import debian
from htlease_lab.pool.instance import base_directory

_APPTAINER = Path(__file__).parents[2] / "pool" / "runtimes" / "apptainer"
_CONTAINED = subprocess.run(
    ["unshare", "--user", "--pid", "--mount", "--fork", "true"], check=False, capture_output=True
)
pytestmark = pytest.mark.skipif(
    _CONTAINED.returncode != 0, reason=f"no name spaces: {_CONTAINED.stderr.decode().strip()}"
)
PLAN = """\
[[phase]]
name = "fetch"
run = ["/bin/sh", "-c", "echo $APPTAINER_CONTAINER"]
restart = "once"
[[phase]]
name = "work"
run = ["./payload.sh"]
"""
#: In front of the words of the runtime's command line that say what to run.
PILOT = """\
executable=/srv/${{1##*/}}; shift
exec env -i PATH=/usr/bin:/bin {handed_on} {runtime} -s exec -C -B "$PWD:/srv" --pwd /srv \
    {image} {inner} "$executable" "$@"
"""
HANDED_ON = "APPTAINERENV__CONDOR_SCRATCH_DIR=/srv APPTAINERENV__CONDOR_JOB_AD=/srv/.job.ad"


@pytest.fixture(scope="module")
def image() -> Path:
    place = base_directory() / "roots" / "python-trixie"
    return debian.unpacked("trixie", "python3", place, print)


class Pilot:
    """A sandbox of a pilot's, and its script."""

    def __init__(self, box: Sandbox, image: Path) -> None:
        self.box, self.image = box, image
        box.job_ad |= {"HTLeaseKey": box.key, "HTLeaseURL": box.server.url}
        box.write("plan.toml", PLAN)
        box.script("payload.sh", 'echo "$APPTAINER_CONTAINER $HTLEASE_PHASE"; exit 5')
        shutil.copy(box.pyz, box.path / "htlease-ep.pyz")

    def script(self, handed_on: str, inner: str = "") -> str:
        words = {"runtime": _APPTAINER, "image": self.image, "handed_on": handed_on}
        self.box.script("pilot.sh", PILOT.format(**words, inner=inner))
        return str(self.box.path / "pilot.sh")

    def run(self, *command: str) -> list[str]:
        """Run what HTCondor would call; return what the payload wrote."""
        self.box.call = ()
        self.box.pyz = Path(command[0])
        assert self.box.run(*command[1:]) == 5, self.box.messages
        *_, attempt = self.box.server.subjob(self.box.key)["attempts"]
        assert attempt["exit_code"] == 5
        assert self.box.messages == ""
        said: list[str] = self.box.output.decode().replace(str(self.image), "in").splitlines()
        return said

    @property
    def fences(self) -> list[int]:
        events = self.box.server.events(self.box.key, "lease-acquired")
        return [event["fence"] for event in events]


@pytest.fixture
def pilot(new_sandbox: NewSandbox, server: ServerProcess, image: Path) -> Pilot:
    return Pilot(new_sandbox(server), image)


@pytest.mark.parametrize("handed_on", [HANDED_ON, ""], ids=["condor-variables", "nothing"])
def test_a_pilots_wrapper_in_front(pilot: Pilot, handed_on: str) -> None:
    wrapper = str(pilot.box.path / "htlease-ep.pyz")
    script = pilot.script(handed_on)
    assert pilot.run(script, wrapper, "run", "--", "./payload.sh") == ["in run"]


def test_a_pilots_wrapper_in_front_of_a_plan(pilot: Pilot) -> None:
    wrapper = str(pilot.box.path / "htlease-ep.pyz")
    said = pilot.run(pilot.script(""), wrapper, "run", "--plan", "plan.toml")
    assert said == ["in", "in work"]


def test_a_pilots_wrapper_that_calls_ours_within(pilot: Pilot) -> None:
    script = pilot.script(HANDED_ON, "/srv/htlease-ep.pyz")
    assert pilot.run(script, str(pilot.box.path / "payload.sh")) == ["in run"]


def test_ours_in_front_of_a_pilots_wrapper(pilot: Pilot) -> None:
    """Nothing of ours gets into the image, for the script hands nothing on."""
    said = pilot.run(str(pilot.box.pyz), pilot.script(""), str(pilot.box.path / "payload.sh"))
    assert said == ["in "]
    assert pilot.fences == [1]


@pytest.mark.parametrize("handed_on", [HANDED_ON, ""], ids=["condor-variables", "nothing"])
@pytest.mark.parametrize("arguments", ["-- ./payload.sh", "--plan plan.toml"])
def test_ours_on_both_sides_of_a_pilots_wrapper(
    pilot: Pilot, handed_on: str, arguments: str
) -> None:
    outer, script = str(pilot.box.pyz), pilot.script(handed_on)
    inner = [str(pilot.box.path / "htlease-ep.pyz"), "run", *arguments.split()]
    said = pilot.run(outer, script, *inner)
    if "--plan" in arguments:
        assert (said, pilot.fences) == (["in", "in work"], [1, 2])
    else:
        assert (said, pilot.fences) == (["in "], [1])
