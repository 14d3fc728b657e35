"""How a person is told: by a command, a file, or both."""

from __future__ import annotations

from pathlib import Path

from htlease_dagman.staging.notify import send_notice
from htlease_dagman.staging.staging_file import Notice


def test_a_command_gets_the_subject_as_a_word_and_the_text_on_its_input(tmp_path: Path) -> None:
    note = tmp_path / "note"
    command = ("/bin/sh", "-c", f'{{ echo "$1"; cat; }} > {note}', "sh", "{subject}")
    assert send_notice(Notice(command), "a subject; $(id)", "log in again") is None
    assert note.read_text() == "a subject; $(id)\nlog in again\n"


def test_a_file_keeps_all_notices(tmp_path: Path) -> None:
    file = tmp_path / "notices.txt"
    for text in ("first", "second"):
        assert send_notice(Notice((), file), "subject", text) is None
    assert file.read_text() == "subject\nfirst\n\nsubject\nsecond\n\n"


def test_a_notice_that_cannot_be_sent_is_reported(tmp_path: Path) -> None:
    failed = send_notice(Notice(("/bin/sh", "-c", "echo no mail >&2; exit 3")), "s", "t")
    assert failed is not None and "ended with 3: no mail" in failed
    absent = send_notice(Notice(("/no/such/mail",)), "s", "t")
    assert absent is not None and "/no/such/mail" in absent
    shut = send_notice(Notice((), tmp_path / "none" / "file"), "s", "t")
    assert shut is not None and "No such file" in shut


def test_nothing_set_up_is_no_problem() -> None:
    assert send_notice(Notice(), "s", "t") is None
