"""The command back-end: real commands, and what their words and exit codes are taken for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from htlease_dagman.staging.backends.command import CommandBackend, CommandRules
from htlease_dagman.staging.transfer import (
    CannotFind,
    Item,
    NeedsPerson,
    Place,
    Refused,
    ServiceUnavailable,
    State,
    Transfer,
)

TRANSFER = Transfer(
    Place("a", "/from here"), Place("b", "/to/"), (Item("x", "y"), Item("dir/", "dir/"))
)
WORDS = {
    "needs_action": re.compile("expired"),
    "unknown": re.compile("no such task"),
    "done": re.compile("^SUCCEEDED", re.MULTILINE),
    "retryable": re.compile("too busy"),
    "failed": re.compile("^FAILED", re.MULTILINE),
    "running": re.compile("^ACTIVE", re.MULTILINE),
}


def sh(script: str, *arguments: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script, "sh", *arguments)


def backend(
    submit: str = "true",
    poll: str = "true",
    find: str = "",
    action: str | None = None,
    call_seconds: float = 20.0,
    **more: str,
) -> CommandBackend:
    rules = CommandRules(
        submit=sh(submit, "{key}", "{from}", "{to}"),
        poll=sh(poll, "{id}"),
        find=sh(find, "{key}") if find else (),
        cancel=sh(more["cancel"], "{id}") if "cancel" in more else (),
        check=sh(more["check"], "{path}") if "check" in more else (),
        id=re.compile(more["id"]) if "id" in more else None,
        words=WORDS,
        exits={75: "retryable", 77: "needs_action", 4: "failed"},
        action=action,
        call_seconds=call_seconds,
    )
    return CommandBackend(rules)


def test_the_id_is_the_last_line_or_what_the_expression_finds() -> None:
    chatty = 'echo "warning: $1" >&2; echo queued; echo "ID-$1"'
    assert backend(chatty).submit("k1", TRANSFER, None) == "ID-k1"
    assert backend("echo 'Task ID: t-7 (new)'", id=r"Task ID: (\S+)").submit(
        "k1", TRANSFER, None
    ) == ("t-7")


def test_submit_gets_places_as_words_and_items_on_standard_input(tmp_path: Path) -> None:
    note = tmp_path / "note"
    backend(f'{{ printf "%s|%s|%s\\n" "$1" "$2" "$3"; cat; }} > {note}; echo t1').submit(
        "k1; rm -rf /", TRANSFER, None
    )
    assert note.read_text() == (
        "k1; rm -rf /|/from here|/to/\n/from here/x\t/to/y\n/from here/dir/\t/to/dir/\n"
    )


@pytest.mark.parametrize(
    ("submit", "error", "said"),
    [
        ("echo quota exceeded; exit 4", Refused, "quota"),
        ("echo the queue is too busy; exit 1", Refused, "too busy"),
        ("exit 75", Refused, "exit code 75"),
        ("echo proxy expired; exit 1", NeedsPerson, "proxy expired"),
        ("exit 77", NeedsPerson, "exit code 77"),
        ("echo Connection reset >&2; exit 1", ServiceUnavailable, "Connection reset"),
        ("true", ServiceUnavailable, "named no task"),
        ("kill -9 $$", ServiceUnavailable, "-9"),
    ],
)
def test_how_a_failed_submission_is_taken(submit: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        backend(submit).submit("k", TRANSFER, None)


def test_a_submit_command_that_hangs_may_have_submitted() -> None:
    with pytest.raises(ServiceUnavailable, match="did not end"):
        backend("sleep 60", call_seconds=0.2).submit("k", TRANSFER, None)


def test_a_command_that_is_not_there_needs_a_person() -> None:
    rules = CommandRules(submit=("/no/such/tool",), poll=("/no/such/tool",))
    with pytest.raises(NeedsPerson, match="/no/such/tool"):
        CommandBackend(rules).poll("t")


@pytest.mark.parametrize(
    ("poll", "state", "is_unclear"),
    [
        ("echo ACTIVE", State.RUNNING, False),
        ("echo SUCCEEDED", State.DONE, False),
        ("echo FAILED; exit 1", State.FATAL, False),
        ("echo FAILED: endpoint too busy", State.RETRYABLE, False),
        ("echo ACTIVE, proxy expired", State.NEEDS_ACTION, False),
        ("echo no such task; exit 2", State.UNKNOWN, False),
        ("exit 77", State.NEEDS_ACTION, False),
        ("exit 4", State.FATAL, False),
        ("true", State.RUNNING, True),
        ("echo Segmentation fault; exit 139", State.RUNNING, True),
    ],
)
def test_how_the_answer_of_a_poll_is_taken(poll: str, state: State, is_unclear: bool) -> None:
    status = backend(poll=poll).poll("t1")
    assert (status.state, status.is_unclear) == (state, is_unclear)


def test_the_action_is_the_files_own_when_it_has_one() -> None:
    assert backend(poll="echo proxy expired").poll("t").text == "proxy expired"
    told = backend(poll="echo proxy expired", action="run voms-proxy-init")
    assert told.poll("t").text == "run voms-proxy-init"


def test_finding_tells_no_task_from_no_answer() -> None:
    assert backend(find='echo "t-$1"').find_by_key("k") == "t-k"
    assert backend(find="true").find_by_key("k") is None
    assert backend(find="echo no such task; exit 3").find_by_key("k") is None
    with pytest.raises(ServiceUnavailable):
        backend(find="exit 1").find_by_key("k")
    with pytest.raises(CannotFind):
        backend().find_by_key("k")


def test_a_task_is_cancelled_by_its_command(tmp_path: Path) -> None:
    note = tmp_path / "note"
    backend(cancel=f'echo "$1" > {note}').cancel("t1")
    assert note.read_text() == "t1\n"
    with pytest.raises(ServiceUnavailable, match="cancel ended with 3"):
        backend(cancel="exit 3").cancel("t1")
    backend().cancel("t1")


def test_places_are_checked_when_there_is_a_command_for_it() -> None:
    place = Place("a", "/a")
    denied = backend(check='echo "denied: $1"; exit 1')
    assert denied.check(place, has_to_exist=False) == "/a cannot be used: denied: /a"
    missing = backend(check="echo no such task or directory; exit 1")
    assert missing.check(place, has_to_exist=False) is None
    assert "no such" in (missing.check(place, has_to_exist=True) or "")
    assert backend(check="true").check(place, has_to_exist=True) is None
    assert backend().check(place, has_to_exist=True) is None
