"""What is foreseen of a submit file, and when nothing is; HTCondor's bindings read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease.rules.attempt import SubjobKey
from htlease_cli.submit.foresight import as_commands, foreseen_keys, own_workflow, with_includes

EXECUTABLE = "executable = run.sh\n"


def keys(text: str, *overrides: str) -> list[str] | None:
    found = foreseen_keys(EXECUTABLE + text, as_commands(overrides), "w")
    return None if found is None else [str(key) for key in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("queue\n", ["w/0"]),
        ("queue 3\n", ["w/0", "w/1", "w/2"]),
        ("queue 2 x in (a b)\n", ["w/0", "w/1", "w/2", "w/3"]),
        ("HTLeaseKey = s-$(x)\nqueue x in (a b)\n", ["w/s-a", "w/s-b"]),
        ('+HTLeaseKey = "w/$(x)-$(Step)"\nqueue 2 x in (a)\n', ["w/a-0", "w/a-1"]),
        ('MY.HTLeaseKey = "w/$(Process)"\nqueue 1 x from (\n  a\n  b\n)\n', ["w/0", "w/1"]),
    ],
)
def test_plain_queue_statements_are_foreseen(text: str, expected: list[str]) -> None:
    assert keys(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "queue x from gen.sh |\n",
        "queue x from ./gen.sh a b | \n",
        "include command : gen.sh\nqueue\n",
        "include : gen.sh |\nqueue\n",
        "queue x from [::2] list.txt\n",
        "queue $(n)\nn = 2\n",
        "queue\narguments = 2\nqueue\n",
        "max_materialize = 1\nqueue 3\n",
        "MAX_IDLE = 2\nqueue 3\n",
        "materialize_max_idle = 2\nqueue 3\n",
        "JobMaterializeLimit = 2\nqueue 3\n",
        "if defined x\nendif\nqueue\n",
        "queue x from no-such-file.txt\n",
        "no queue statement\n",
        "caf\xe9 = = \nqueue 2 x in\n",
    ],
)
def test_whatever_is_doubtful_is_not_foreseen(text: str) -> None:
    assert keys(text) is None


@pytest.mark.parametrize(
    ("text", "included", "expected"),
    [
        ("include : more.inc\nqueue 2\n", "request_memory = 1\n", ["w/0", "w/1"]),
        ("  Include:more.inc  \nqueue 2\n", "HTLeaseKey = s-$(Process)", ["w/s-0", "w/s-1"]),
        ("include : more.inc\nqueue 2\n", "max_idle = 2\n", None),
        ("include : more.inc\nqueue 2\n", "include : further.inc\n", None),
        ("include : more.inc\nqueue 2\n", "include : gen.sh |\n", None),
        ("include : more.inc\n", "queue 2\n", ["w/0", "w/1"]),
        ("include : more.inc\nqueue\n", "queue 2\n", None),
        ("include : none.inc\nqueue\n", "", None),
        ("include : $(n).inc\nqueue\n", "", None),
        ("include into more.inc : gen.sh\nqueue\n", "", None),
    ],
)
def test_an_included_file_counts_as_lines_of_its_own(
    text: str, included: str, expected: list[str] | None
) -> None:
    files = {"more.inc": included}
    assert keys(with_includes(text, files.get)) == expected


def test_nothing_is_run_to_look_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "gen.sh"
    script.write_text("#!/bin/sh\ntouch ran\necho a\n")
    script.chmod(0o755)
    for text in ("queue x from ./gen.sh |\n", "include : ./gen.sh |\nqueue\n"):
        assert keys(text) is None
    assert not (tmp_path / "ran").exists()


def test_an_override_counts_as_a_line_of_the_file() -> None:
    assert keys("queue 2\n", '+HTLeaseKey = "w/x$(Process)"') == ["w/x0", "w/x1"]
    assert keys("queue 2\n", "max_materialize=1") is None


@pytest.mark.parametrize(
    ("text", "workflow"),
    [
        ('+HTLeaseKey = "run7/s-$(x)"', "run7"),
        ("  htleasekey=run7/s", "run7"),
        ('My.HTLeaseKey = "run7/$(Process)"', "run7"),
        ("HTLeaseKey = s-$(x)", None),
        ('+HTLeaseKey = "$(w)/s"', None),
        ("# HTLeaseKey = run7/s", None),
    ],
)
def test_a_literal_workflow_of_the_files_own_key_is_found(text: str, workflow: str | None) -> None:
    assert own_workflow(f"executable = x\n{text}\nqueue\n") == workflow


def test_keys_are_keys() -> None:
    assert foreseen_keys(EXECUTABLE + "queue\n", {}, "w") == (SubjobKey("w", "0"),)
