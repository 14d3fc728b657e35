"""A job's memory group is full: the kernel kills in it what is largest, or all of it.

As with HTCondor's `CGROUP_MEMORY_LIMIT_POLICY`: wrapper and payload share the job's group.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.execution import NewSandbox, Sandbox, wait_for
from tests.serving import ServerProcess

_V1 = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
_V2 = Path("/sys/fs/cgroup"), "memory.max"
_LIMIT_BYTES = 128 << 20
#: Takes twice as much as there is, after it has told that it runs.
_GREEDY = "open('runs', 'w').close(); print(len(bytearray(256 << 20)))"


def _make_group() -> Path | None:
    for parent, limit in (_V1, _V2):
        group = parent / f"htlease-test-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
            (group / limit).write_text(str(_LIMIT_BYTES))
        except OSError:
            if group.exists():
                group.rmdir()
        else:
            return group
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory group of which a job is given no more; skips where none can be made."""
    group = _make_group()
    if group is None:
        pytest.skip("no memory group can be made here")
    members = group / "cgroup.procs"
    yield group
    for pid in members.read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: not members.read_text(), "the group to be empty")
    group.rmdir()


def enter(box: Sandbox, group: Path) -> None:
    """Let what the sandbox starts be in the group."""
    box.python = str(box.path / "enter")
    box.script("enter", f'echo $$ > {group}/cgroup.procs || exit 99\nexec "$@"')


@pytest.mark.parametrize("call", [(), ("run", "--ttl", "6", "--")], ids=["site", "line"])
def test_a_payload_that_takes_too_much_dies_as_without_us(
    new_sandbox: NewSandbox, server: ServerProcess, group: Path, call: tuple[str, ...]
) -> None:
    box = new_sandbox(server)
    enter(box, group)
    box.call = call
    payload = box.python_script("greedy", _GREEDY)
    assert box.run(str(box.path / payload)) == -signal.SIGKILL, box.messages
    (attempt,) = server.subjob(box.key)["attempts"]
    assert attempt["exit_signal"] == signal.SIGKILL
    assert box.messages == ""


def test_a_group_that_is_killed_as_a_whole_is_waited_for_and_gone_on_with(
    new_sandbox: NewSandbox, server: ServerProcess, group: Path
) -> None:
    """With `memory.oom.group` the wrapper has no last words: the next start waits for the lease."""
    box = new_sandbox(server)
    enter(box, group)
    box.call = ("run", "--ttl", "6", "--")
    process = box.start("/bin/sh", "-c", "touch runs; exec sleep 300")
    wait_for((box.path / "runs").exists, "the payload to run")
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    again = new_sandbox(server, key=box.key, job_starts=1, shadow_starts=2, slot=2)
    again.call = box.call
    assert again.run("/bin/sh", "-c", "exit 4") == 4
    grants = server.events(box.key, "lease-acquired")
    assert [(grant["fence"], grant["why"]) for grant in grants] == [(1, "first"), (2, "expired")]
