"""What is read from condor_submit's words, by a program in its place that says them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_cli.submit import condor_submit
from htlease_cli.submit.condor_submit import SubmitRefused

FILE = Path("a.sub")
Says = Callable[..., None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    def stand_in(out: str = "", err: str = "", status: int = 0) -> None:
        (tmp_path / "out").write_text(out)
        (tmp_path / "err").write_text(err)
        program = tmp_path / "condor_submit"
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\n'
            f"cat {tmp_path}/out; cat {tmp_path}/err >&2; exit {status}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return stand_in


def test_the_users_options_come_before_our_lines_and_the_file_last(
    says: Says,
    tmp_path: Path,
) -> None:
    says("1 job(s) submitted to cluster 3.\n")
    condor_submit.submit(FILE, "x = 1\n", ("-append", "y = 2", "-spool"))
    called = (tmp_path / "called").read_text().split("\n")
    assert called == ["-append", "y = 2", "-spool", "-append", "x = 1", "", "a.sub", ""]


def test_counts_are_by_cluster_and_warnings_are_the_users_own(says: Says) -> None:
    says(
        "Submitting job(s)..\n2 job(s) submitted to cluster 7.\n1 job(s) submitted to cluster 8.\n",
        "WARNING: the line 'htlease_is_sent = $(x)' was unused by condor_submit. Is it a typo?\n"
        "WARNING: the line 'exectable = b' was unused by condor_submit. Is it a typo?\n"
        "To monitor your job(s), run: condor_watch_q -clusters 7\n",
    )
    answer = condor_submit.submit(FILE, "", ())
    assert answer.job_counts == {7: 2, 8: 1}
    assert answer.warnings == (
        "WARNING: the line 'exectable = b' was unused by condor_submit. Is it a typo?",
    )


def test_our_own_refusal_is_shown_without_condor_submits_words(says: Says) -> None:
    says(
        "", "\nERROR: Parse error in expression: \n\tX = htlease-refuses: java universe; use y\n", 1
    )
    with pytest.raises(SubmitRefused, match="^a.sub: java universe; use y$"):
        condor_submit.submit(FILE, "", ())


def test_htcondors_refusal_is_shown_in_its_words(says: Says) -> None:
    says("Submitting job(s)", "\nERROR: No 'executable' parameter was provided\n", 1)
    with pytest.raises(SubmitRefused, match="take the jobs: ERROR: No 'executable' parameter"):
        condor_submit.submit(FILE, "", ())


def test_a_machine_without_condor_submit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadConfig, match="condor_submit is not on PATH"):
        condor_submit.submit(FILE, "", ())
