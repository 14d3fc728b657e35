"""How a watcher ends that could not do its work at all."""

from __future__ import annotations

import pytest

from htlease_dagman.staging import watch_command
from htlease_dagman.staging.watcher import DONE, FAILED, LATER


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_what_breaks_a_watcher_is_no_answer_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def break_down(*_: object) -> None:
        raise error

    monkeypatch.setattr(watch_command, "read_settings", break_down)
    status = watch_command.main(["staging.toml", "stage-in"])
    assert status not in (DONE, FAILED, LATER, 1)
    said = capsys.readouterr().err
    assert type(error).__name__ in said and "Traceback" not in said
