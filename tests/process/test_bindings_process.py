"""The helper process of HTCondor's bindings: what it costs when they hang, fail or end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from htlease.condor.bindings_process import BindingsProcess, read_event_log
from htlease.condor.job_event import JobEvent
from htlease.condor.schedd import ScheddUnavailable

LOG = """\
000 (012.000.000) 2026-12-01 10:00:00 Job submitted from host: <10.77.0.1:9618>
...
001 (012.000.000) 2026-12-01 10:00:05 Job executing on host: <10.77.0.11:9618>
...
001 (013.000.000) 2026-12-01 10:00:06 Job executing on host: <10.77.0.11:9618>
...
"""


@pytest.fixture
def helper() -> Iterator[BindingsProcess]:
    helper = BindingsProcess()
    yield helper
    helper.close()


def pid_of(helper: BindingsProcess) -> int:
    assert helper._process is not None
    return helper._process.pid


def test_a_call_that_hangs_is_ended_and_the_next_one_answered(
    helper: BindingsProcess, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")  # stands for a file system or a daemon that does not answer
    (tmp_path / "log").write_text(LOG)
    assert helper.call("read_event_log", [str(tmp_path / "log"), "12.0"], 60.0, "it")
    hanging = pid_of(helper)
    with pytest.raises(ScheddUnavailable, match=r"the log does not answer within 1 s"):
        helper.call("read_event_log", [str(tmp_path / "fifo"), "12.0"], 1.0, "the log")
    assert not Path(f"/proc/{hanging}").exists()
    assert helper.call("read_event_log", [str(tmp_path / "log"), "12.0"], 60.0, "it")
    assert pid_of(helper) != hanging


def test_an_interpreter_that_is_ended_is_one_failed_call(
    helper: BindingsProcess, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "log").write_text(LOG)
    helper.call("read_event_log", [str(tmp_path / "log"), "12.0"], 60.0, "it")
    os.kill(pid_of(helper), signal.SIGSEGV)
    with pytest.raises(ScheddUnavailable, match=r"the log cannot be asked: .* status -11"):
        helper.call("read_event_log", [str(tmp_path / "fifo"), "12.0"], 60.0, "the log")


def test_events_and_errors_come_over_the_pipe_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    submitted, executing = read_event_log(tmp_path / "log", "12.0")
    assert isinstance(submitted, JobEvent) and submitted.name == "SUBMIT"
    assert (executing.number, executing.fields["ExecuteHost"]) == (1, "<10.77.0.11:9618>")
    with pytest.raises(OSError, match=r".") as caught:
        read_event_log(tmp_path / "absent", "12.0")
    assert not isinstance(caught.value, ScheddUnavailable)
