"""The line in a DAG file goes in and comes out again, whatever the file is like."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import real_dags

from htlease_dagman.dagfile.include_line import with_line, without_line

INCLUDE = Path("/home/ann/my.dag.htlease.inc")
LINE = b"INCLUDE /home/ann/my.dag.htlease.inc"
#: What line ends are made of, more often than chance would have it.
TEXTS = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b"\r", b"JOB A a.sub", b"# INCLUDE", b"\xff\x00", b" \t", b"\\"]
    )
).map(b"".join)


@given(TEXTS)
def test_a_file_is_the_same_after_the_line_was_in_it(text: bytes) -> None:
    once = with_line(text, INCLUDE)
    assert once.count(LINE) == 1
    assert with_line(once, INCLUDE) == once
    assert without_line(once) == text
    assert without_line(text) == text


@pytest.mark.parametrize("name", real_dags.MAIN)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("ends_with_line", [True, False])
def test_dags_of_others_are_the_same_again(
    name: str, line_end: bytes, ends_with_line: bool
) -> None:
    text = (real_dags.FOLDER / name / real_dags.MAIN[name]).read_bytes()
    text = text.rstrip(b"\n").replace(b"\n", line_end) + (line_end if ends_with_line else b"")
    once = with_line(text, INCLUDE)
    assert once == text + (LINE + line_end if ends_with_line else line_end + LINE)
    assert without_line(once) == text


def test_what_was_written_behind_the_line_stays_and_the_line_moves_behind_it() -> None:
    text = b"JOB A a.sub\n" + LINE + b"\nSCRIPT PRE A late.sh\n"
    assert with_line(text, INCLUDE) == b"JOB A a.sub\nSCRIPT PRE A late.sh\n" + LINE + b"\n"


def test_the_line_of_a_dag_that_was_copied_is_replaced() -> None:
    copied = b"JOB A a.sub\nINCLUDE /elsewhere/their.dag.htlease.inc\n"
    assert with_line(copied, INCLUDE) == b"JOB A a.sub\n" + LINE + b"\n"
