"""The built pyz under every Python that an execution point may have.

Interpreters come from HTLEASE_TEST_PYTHONS (paths, colon between), from PATH and from pyenv; one that
is missing shows up as a skipped test that says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.process.execution import Sandbox
from tests.process.serving import ServerProcess

VERSIONS = ("3.9", "3.11", "3.13", "3.14")
CODES = (0, 1, 2, 75, 76, 78, 85, 126, 127, 128, 130, 137, 255)


def _find(version: str) -> str | None:
    given = os.environ.get("HTLEASE_TEST_PYTHONS", "").split(":")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [
        *(path for path in given if path.endswith(f"python{version}")),
        *(str(path) for path in pyenv.glob(f"{version}.*/bin/python{version}")),
        shutil.which(f"python{version}"),
    ]
    return next((path for path in candidates if path and Path(path).exists()), None)


@pytest.fixture(params=VERSIONS)
def on_python(
    request: pytest.FixtureRequest, new_sandbox: Callable[..., Sandbox], server: ServerProcess
) -> Callable[[], Sandbox]:
    """Make sandboxes in which the pyz runs under one version of Python."""
    python = _find(request.param)
    if python is None:
        pytest.skip(f"no python{request.param} here; name one in HTLEASE_TEST_PYTHONS")

    def new() -> Sandbox:
        box = new_sandbox(server)
        box.python = python
        # `"$HTLEASE" phase ...` finds its python3 in PATH.
        (box.path / "bin").mkdir()
        (box.path / "bin" / "python3").symlink_to(python)
        box.environ["PATH"] = f"{box.path}/bin:/usr/bin:/bin"
        return box

    return new


def test_exit_codes_and_death_by_signal(on_python: Callable[[], Sandbox]) -> None:
    boxes = [on_python() for _ in CODES]
    with ThreadPoolExecutor(2) as pool:
        seen = pool.map(
            lambda pair: pair[0].run("--", "sh", "-c", f"exit {pair[1]}"),
            zip(boxes, CODES, strict=True),
        )
        assert tuple(seen) == CODES
    assert on_python().run("--", "sh", "-c", "kill -TERM $$") == -15


def test_a_plan_is_walked_and_details_are_saved(on_python: Callable[[], Sandbox]) -> None:
    box = on_python()
    save = "echo saved > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS"
    box.write(
        "plan.toml",
        f'[[phase]]\nname = "one"\nrun = ["sh", "-c", "{save}"]\nrestart = "resume"\n'
        '[[phase]]\nname = "two"\nrun = ["sh", "-c", "echo $HTLEASE_PHASE"]\nrestart = "once"\n',
    )
    assert box.run("--plan", "plan.toml") == 0
    assert box.output == b"two\n"
    subjob = box.server.subjob(box.key)
    assert (subjob["outcome"], subjob["details"]) == ("complete", "saved\n")


def test_a_payload_manages_its_phases(on_python: Callable[[], Sandbox]) -> None:
    box = on_python()
    walk = '"$HTLEASE" phase enter running && "$HTLEASE" phase enter complete'
    assert box.run("--profile", "simple", "--", "sh", "-c", walk) == 0
    assert box.server.subjob(box.key)["outcome"] == "complete"


def test_a_server_that_is_away_is_waited_for(on_python: Callable[[], Sandbox]) -> None:
    """The retries come from the tenacity that is inside the file."""
    box = on_python()
    box.environ["HTLEASE_URL"] = "http://127.0.0.1:9"
    assert box.run("--wait-server", "1", "--", "touch", "ran") == 75
    assert "the server does not answer" in box.messages


def test_bad_input_shows_no_traceback(on_python: Callable[[], Sandbox]) -> None:
    box = on_python()
    assert box.run("--key", "a b/c", "--", "true") == 78
    assert box.run("--frob") == 78
    assert "Traceback" not in box.messages
