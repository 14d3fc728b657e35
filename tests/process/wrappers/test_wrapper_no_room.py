"""A system that has no more threads or processes costs a lease at most, never a healthy payload."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.process.execution import Sandbox

#: Runs the pyz in a Python that can start no thread, or has no memory for one to begin with.
_DRIVER = """\
import _thread, runpy, sys
def refused(*_):
    raise RuntimeError("can't start new thread")
{how}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _driven(sandbox: Sandbox, how: str) -> None:
    sandbox.write("driver.py", _DRIVER.format(how=how))
    words = [sys.executable, "-IS", "driver.py", str(sandbox.pyz)]
    sandbox.argv = lambda *rest: [*words, *rest]  # type: ignore[method-assign]


def test_without_a_thread_the_lease_is_renewed_while_waiting(sandbox: Sandbox) -> None:
    _driven(sandbox, "_thread.start_new_thread = refused")
    save = '> "$HTLEASE_DETAILS.new"; mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"'
    script = sandbox.script("p", f"echo one {save}; sleep 4; echo two {save}")
    assert sandbox.run("--ttl", "3", "--restart", "resume", "--", script) == 0, sandbox.messages
    events = [event["event"] for event in sandbox.server.history(sandbox.key)]
    assert events.count("details-saved") == 2  # the first of them while the payload ran
    assert sandbox.server.subjob(sandbox.key)["attempts"][0]["exit_code"] == 0


def test_a_thread_that_cannot_begin_is_not_waited_for(sandbox: Sandbox) -> None:
    _driven(
        sandbox,
        "_thread.start_new_thread = lambda *_: 1\n"
        "import threading; wait = threading.Event.wait\n"
        "threading.Event.wait = lambda self, seconds=None: wait(self, 0.1)",
    )
    assert sandbox.run("--", "sh", "-c", "exit 5") == 5, sandbox.messages
    assert sandbox.server.subjob(sandbox.key)["attempts"][0]["exit_code"] == 5


def test_a_payload_that_cannot_be_forked_runs_untracked_and_the_lease_is_given_back(
    sandbox: Sandbox,
) -> None:
    _driven(
        sandbox,
        "import errno, os\n"
        "def spawn(*_, **__):\n"
        "    raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "os.posix_spawn = spawn",
    )
    assert sandbox.run("--", "sh", "-c", "env; exit 5") == 5, sandbox.messages
    assert "runs untracked" in sandbox.messages
    assert b"HTLEASE_FENCE" not in sandbox.output
    attempt = sandbox.server.subjob(sandbox.key)["attempts"][0]
    assert (attempt["exit_code"], attempt["reason"] is not None) == (None, True)
    assert not (sandbox.path / ".htlease.json").exists()


def test_a_later_phase_that_cannot_be_forked_is_left_to_the_next_attempt(
    sandbox: Sandbox,
) -> None:
    _driven(
        sandbox,
        "import errno, os\n"
        "real = os.posix_spawn\n"
        "def spawn(program, *rest, **more):\n"
        "    if program.endswith('second'):\n"
        "        raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "    return real(program, *rest, **more)\n"
        "os.posix_spawn = spawn",
    )
    for name in ("first", "second"):
        sandbox.script(name, f"touch {name}.ran")
    plan = "".join(f'[[phase]]\nname = "{n}"\nrun = ["./{n}"]\n' for n in ("first", "second"))
    sandbox.write("plan.toml", plan)
    assert sandbox.run("--plan", "plan.toml") == 75, sandbox.messages
    assert "second was not started" in sandbox.messages or "next phase" in sandbox.messages
    assert (sandbox.path / "first.ran").exists() and not (sandbox.path / "second.ran").exists()
    document = sandbox.server.subjob(sandbox.key)
    assert document["outcome"] is None
    assert Path(sandbox.path / ".htlease.json").exists() is False
