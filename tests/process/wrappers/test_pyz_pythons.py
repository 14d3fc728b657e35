"""The built pyz on the Pythons of execution points, each from the Debian that ships it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.process.execution import Sandbox
from tests.serving import ServerProcess

from htlease_lab.pool.debian import unpacked
from htlease_lab.pool.instance import base_directory

PYTHON_OF = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13", "sid": "3"}
CHROOT = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
PLAN = """\
[[phase]]
name = "fetch"
run = ["sh", "-c", "echo fetched > input"]
restart = "once"
[[phase]]
name = "compute"
run = ["./compute.sh"]
restart = "resume"
"""
COMPUTE = """\
#!/bin/sh
cat "$HTLEASE_DETAILS" > seen 2>/dev/null
echo "step 1" > "$HTLEASE_DETAILS.new" && mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"
[ "$HTLEASE_ATTEMPT_NUMBER" = 2 ] || exit 9
"""


@pytest.fixture(scope="module", params=PYTHON_OF)
def debian(request: pytest.FixtureRequest) -> Path:
    """The root of a Debian with its own Python."""
    roots = base_directory() / "roots"
    root = unpacked(request.param, "python3", roots / f"python-{request.param}", print)
    version = subprocess.run(
        [CHROOT, root, "python3", "-V"], capture_output=True, text=True, check=True
    ).stdout
    assert version.startswith(f"Python {PYTHON_OF[request.param]}."), version
    return root


@pytest.fixture
def inside(debian: Path, pyz: Path, server: ServerProcess) -> Iterator[Callable[..., Sandbox]]:
    """Make sandboxes whose wrapper runs in the root, with the root's Python."""
    top = debian / "tmp" / "htlease-test"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    shutil.copy(pyz, top / "htlease-ep.pyz")
    made: list[Sandbox] = []

    def new(name: str, key: str, **start: int) -> Sandbox:
        box = Sandbox(top / name, pyz, server, key, **start)
        path = f"/tmp/htlease-test/{name}"
        box.environ.update(
            {
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": path,
                "_CONDOR_SCRATCH_DIR": path,
                "_CONDOR_JOB_AD": f"{path}/.job.ad",
                "_CONDOR_MACHINE_AD": f"{path}/.machine.ad",
            }
        )
        enter = f'cd {path} && exec python3 /tmp/htlease-test/htlease-ep.pyz "$@"'
        box.argv = lambda *rest: [CHROOT, str(debian), "sh", "-c", enter, "sh", *rest]  # type: ignore[method-assign]
        made.append(box)
        return box

    yield new
    for box in made:
        box.kill_all()
    shutil.rmtree(top)


def test_a_restarted_job_reclaims_its_phase_on_every_python(
    inside: Callable[..., Sandbox], server: ServerProcess, debian: Path
) -> None:
    key = f"pythons/{debian.name}"
    first = inside("first", key)
    first.write("plan.toml", PLAN)
    first.write("compute.sh", COMPUTE, 0o755)
    assert first.run("--plan", "plan.toml") == 9, first.messages
    second = inside("second", key, job_starts=1, shadow_starts=2)
    second.write("plan.toml", PLAN)
    second.write("compute.sh", COMPUTE, 0o755)
    assert second.run("--plan", "plan.toml") == 0, second.messages
    assert second.read("seen") == "step 1\n"
    document = server.subjob(key)
    assert [one["exit_code"] for one in document["attempts"]] == [9, 0]
    fetch, compute = document["phases"]
    assert (fetch["entries"], compute["entries"]) == (1, 2)


@pytest.mark.parametrize("ending", ["exit 0", "exit 1", "exit 75", "exit 255", "kill -9 $$"])
def test_the_status_passes_through_on_every_python(
    inside: Callable[..., Sandbox], debian: Path, ending: str
) -> None:
    name = f"{debian.name}-{''.join(filter(str.isalnum, ending))}"
    box = inside(name, f"pythons/{name}")
    expected = -9 if "kill" in ending else int(ending.split()[1])
    assert box.run("--", "sh", "-c", ending) == expected, box.messages


def test_a_payload_manages_its_phases_on_every_python(
    inside: Callable[..., Sandbox], server: ServerProcess, debian: Path
) -> None:
    key = f"pythons/{debian.name}-self-managed"
    box = inside("self-managed", key)
    walk = '"$HTLEASE" phase enter running && "$HTLEASE" phase enter complete'
    assert box.run("--profile", "simple", "--", "sh", "-c", walk) == 0, box.messages
    assert server.subjob(key)["outcome"] == "complete"


def test_a_server_that_is_away_is_waited_for_on_every_python(
    inside: Callable[..., Sandbox], debian: Path
) -> None:
    """The retries come from the tenacity that is inside the file."""
    box = inside("away", f"pythons/{debian.name}-away")
    box.environ["HTLEASE_URL"] = "http://127.0.0.1:9"
    assert box.run("--wait-server", "1", "--restart", "once", "--", "touch", "ran") == 75
    assert "the server does not answer" in box.messages


def test_a_broken_plan_is_one_clear_line_on_every_python(
    inside: Callable[..., Sandbox], debian: Path
) -> None:
    box = inside("broken", f"pythons/{debian.name}-broken")
    box.write("plan.toml", "[[phase]]\nname = 'a'\nrestart = 'sometimes'\nrun = ['true']\n")
    assert box.run("--plan", "plan.toml") == 78
    assert box.run("--key", "a b/c", "--", "true") == 78
    assert "sometimes" in box.messages
    assert "Traceback" not in box.messages
