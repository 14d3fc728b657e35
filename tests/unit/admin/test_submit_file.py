"""A rewritten submit description runs the same payload with the same arguments and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from htlease.errors import InvalidField
from htlease_admin.submit_file import (
    Commands,
    Description,
    Wrapping,
    arguments_after,
    wrap,
)

TOKEN = "/state/tokens/1-2/$(Process)/htlease.token"
WRAPPING = Wrapping(
    pyz=Path("/opt/htlease-ep.pyz"),
    server_url="http://ap1:8620",
    workflow="run7",
    token_path=TOKEN,
    plan_path=None,
    plan_has_commands=False,
    ttl_seconds=None,
    submit_directory=Path("/home/me/job"),
    submission_id="5ub",
)


def wrapped(wrapping: Wrapping = WRAPPING, /, **commands: str) -> Commands:
    given = {"executable": "run.sh", **commands}
    return wrap(Description(Commands(given)), wrapping).commands


def inputs(commands: Commands) -> list[str]:
    return [entry.strip() for entry in commands["transfer_input_files"].split(",")]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "run -- ./p"),
        ("a b", "run -- ./p a b"),
        ("  a   b  ", "run -- ./p a   b"),
        ("$(Process) $$(Cpus)", "run -- ./p $(Process) $$(Cpus)"),
        # Old quoting: bare words, where a backslash makes a double quote.
        (r"say \"hi\" 'as is'", r"run -- ./p say \"hi\" 'as is'"),
        (r"a\b", r"run -- ./p a\b"),
        # New quoting: all in double quotes, single quotes group, doubled quotes are quotes.
        ('"a b"', '"run -- ./p a b"'),
        ('" a"', '"run -- ./p a"'),
        ("\"one 'two three'\"", "\"run -- ./p one 'two three'\""),
        ("\"'' x\"", "\"run -- ./p '' x\""),
        ('"say ""hi"""', '"run -- ./p say ""hi"""'),
        ("\"it''s\"", "\"run -- ./p it''s\""),
        ('""', '"run -- ./p "'),
    ],
)
def test_arguments_keep_their_quoting(before: str, after: str) -> None:
    assert arguments_after(["run", "--", "./p"], before) == after


def test_a_word_that_would_need_quoting_is_refused_by_name() -> None:
    with pytest.raises(InvalidField, match=r"'my plan.toml' has a space or quote"):
        arguments_after(["run", "--plan", "my plan.toml"], "a")


def test_the_wrapper_gets_server_lease_and_plan_before_the_payload() -> None:
    wrapping = replace(WRAPPING, ttl_seconds=90.0, plan_path=Path("/home/me/job/plan.toml"))
    commands = wrapped(wrapping, arguments="-x 1")
    assert commands["arguments"] == (
        "run --server http://ap1:8620 --ttl 90 --plan plan.toml -- ./run.sh -x 1"
    )
    assert inputs(commands) == ["/home/me/job/plan.toml", "/home/me/job/run.sh", TOKEN]


def test_a_plan_that_is_transferred_already_is_not_added_again() -> None:
    wrapping = replace(WRAPPING, plan_path=Path("/home/me/job/plan.toml"))
    commands = wrapped(wrapping, transfer_input_files="conf/plan.toml, b")
    assert inputs(commands) == ["conf/plan.toml", "b", "/home/me/job/run.sh", TOKEN]


def test_a_plan_with_commands_makes_the_executable_an_input_file_only() -> None:
    wrapping = replace(WRAPPING, plan_path=Path("/home/me/job/plan.toml"), plan_has_commands=True)
    commands = wrapped(wrapping)
    assert commands["arguments"] == "run --server http://ap1:8620 --plan plan.toml"
    assert "/home/me/job/run.sh" in inputs(commands)
    with pytest.raises(InvalidField, match=r"arguments: plan .*plan\.toml says what each phase"):
        wrapped(wrapping, arguments="-x 1")


@pytest.mark.parametrize("name", ["arguments2", "args", "MY.Args", "my.arguments"])
def test_arguments_under_another_name_are_refused(name: str) -> None:
    with pytest.raises(InvalidField, match="write it as `arguments`"):
        wrapped(**{name: "a"})


# ---------------------------------------------------------------- executable


@pytest.mark.parametrize(
    ("executable", "program", "transferred"),
    [
        ("run.sh", "./run.sh", "/home/me/job/run.sh"),
        ("bin/run.sh", "./run.sh", "/home/me/job/bin/run.sh"),
        ("../run.sh", "./run.sh", "/home/me/job/../run.sh"),
        ("/bin/sleep", "./sleep", "/bin/sleep"),
        ("$(prog)", "./$Fnx(htlease_executable)", "$(prog)"),
    ],
)
def test_the_executable_travels_as_input_and_runs_by_its_name(
    executable: str, program: str, transferred: str
) -> None:
    commands = wrapped(executable=executable)
    assert commands["executable"] == "/opt/htlease-ep.pyz"
    assert commands["arguments"].endswith(f" -- {program}")
    assert transferred in inputs(commands)
    assert ("htlease_executable" in commands) == ("$" in executable)


@pytest.mark.parametrize(
    ("executable", "program"),
    [("/usr/bin/python3", "/usr/bin/python3"), ("tool", "./tool"), ("$(prog)", "$(prog)")],
)
def test_an_executable_that_stays_where_it_is_runs_from_there(
    executable: str, program: str
) -> None:
    commands = wrapped(executable=executable, transfer_executable="False")
    assert commands["arguments"].endswith(f" -- {program}")
    assert commands["transfer_executable"] == "true"
    assert inputs(commands) == [TOKEN]


def test_input_files_of_the_job_stay_in_front_and_in_order() -> None:
    commands = wrapped(transfer_input_files='"a, dir/b ,https://x/y"')
    assert inputs(commands) == ["a", "dir/b", "https://x/y", "/home/me/job/run.sh", TOKEN]


@pytest.mark.parametrize("executable", ["my prog", "a'b", "a,b"])
def test_an_executable_that_no_list_takes_is_refused_by_name(executable: str) -> None:
    with pytest.raises(InvalidField, match="give it a plain name"):
        wrapped(executable=executable)


def test_a_missing_executable_is_named() -> None:
    with pytest.raises(InvalidField, match="executable: is missing"):
        wrapped(executable="")


def test_a_file_that_has_the_wrapper_already_only_gets_key_and_token() -> None:
    commands = wrapped(executable="dist/htlease-ep.pyz", arguments="run --plan p.toml")
    assert commands["executable"] == "dist/htlease-ep.pyz"
    assert commands["arguments"] == "run --plan p.toml"
    assert inputs(commands) == [TOKEN]
    assert commands["MY.HTLeaseKey"] == '"run7/$(Process)"'
    with pytest.raises(InvalidField, match="is the wrapper already"):
        wrapped(replace(WRAPPING, ttl_seconds=9.0), executable="htlease-ep-0.1.pyz")


# ---------------------------------------------------------------- universe and transfer


@pytest.mark.parametrize("universe", ["parallel", "grid", "scheduler", "java", "vm"])
def test_a_universe_without_wrapper_is_refused(universe: str) -> None:
    with pytest.raises(InvalidField, match=f"universe: {universe} jobs"):
        wrapped(universe=universe)


@pytest.mark.parametrize("commands", [{"universe": "local"}, {"should_transfer_files": "NO"}])
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("", f'"BEARER_TOKEN_FILE={TOKEN}"'),
        ("\"A=b 'C=d e'\"", f"\"BEARER_TOKEN_FILE={TOKEN} A=b 'C=d e'\""),
        ("A=b;C=d e", f"A=b;C=d e;BEARER_TOKEN_FILE={TOKEN}"),
        ("A=b;", f"A=b;BEARER_TOKEN_FILE={TOKEN}"),
    ],
)
def test_without_file_transfer_all_is_named_by_full_path(
    commands: dict[str, str], environment: str, expected: str
) -> None:
    wrapping = replace(WRAPPING, plan_path=Path("/home/me/job/plan.toml"))
    found = wrapped(wrapping, environment=environment, **commands)
    assert found["arguments"].endswith("--plan /home/me/job/plan.toml -- /home/me/job/run.sh")
    assert found["environment"] == expected
    assert "transfer_input_files" not in found


def test_the_token_itself_is_nowhere_in_the_description() -> None:
    assert set(inputs(wrapped())) == {"/home/me/job/run.sh", TOKEN}
    assert "environment" not in wrapped()


def test_files_are_transferred_even_if_the_job_left_it_open() -> None:
    assert wrapped(should_transfer_files="IF_NEEDED")["should_transfer_files"] == "YES"


# ---------------------------------------------------------------- key and retries


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ({}, '"run7/$(Process)"'),
        ({"HTLeaseKey": "wf/$(sample)"}, '"$(HTLeaseKey)"'),
        ({"htleasekey": "$(sample)"}, '"run7/$(HTLeaseKey)"'),
        ({"MY.HTLeaseKey": '"wf/$(sample)"'}, '"wf/$(sample)"'),
        ({"MY.HTLeaseKey": '"$(sample)"'}, '"run7/$(sample)"'),
    ],
)
def test_the_jobs_own_key_wins(commands: dict[str, str], expected: str) -> None:
    assert wrapped(**commands)["MY.HTLeaseKey"] == expected


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ({"MY.HTLeaseKey": "strcat(Owner, ProcId)"}, "not a text in double quotes"),
        ({"HTLeaseKey": "wf/$(ClusterId)"}, "not known before the jobs are enrolled"),
    ],
)
def test_a_key_that_cannot_be_known_beforehand_is_refused(
    commands: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidField, match=message):
        wrapped(**commands)


def test_the_wrappers_try_later_queues_the_job_again_unless_the_job_decides() -> None:
    assert wrapped()["on_exit_remove"].startswith("ExitCode =!= 75 || ")
    assert "on_exit_remove" not in wrapped(max_retries="3")
    assert wrapped(on_exit_remove="true")["on_exit_remove"] == "true"


def test_the_text_has_all_items_and_keeps_values_with_commas_apart() -> None:
    description = Description(
        Commands({"executable": "a"}), 2, ({"x": "1", "y": "2 3"}, {"x": "4,5", "y": "6"})
    )
    assert description.job_count == 4
    assert description.text() == (
        "executable = a\nqueue 2 x,y from (\n    1, 2 3\n    4,5\x1f6\n)\n"
    )
    assert Description(Commands({"executable": "a"}), 3).text() == "executable = a\nqueue 3\n"


# ---------------------------------------------------------------- wall time


def after_wall_time(policy: str, /, **commands: str) -> Commands:
    return wrapped(replace(WRAPPING, on_wall_time=policy), **commands)


HELD_BY_LIMIT = "JobStatus == 5 && (HoldReasonCode == 46 || HoldReasonCode == 47)"


def test_the_next_attempt_comes_by_itself_when_the_time_was_over() -> None:
    commands = after_wall_time("next-attempt")
    assert commands["on_exit_remove"].startswith("ExitCode =!= 79 && (ExitCode =!= 75 ||")
    assert commands["periodic_release"] == HELD_BY_LIMIT


def test_a_job_that_is_to_be_held_is_held_with_the_reason() -> None:
    commands = after_wall_time("hold")
    assert commands["on_exit_hold"] == "ExitCode =?= 79"
    assert commands["on_exit_hold_reason"].startswith('"walltime: ')
    assert "79" not in commands["on_exit_remove"]
    assert "periodic_release" not in commands


def test_what_has_failed_does_not_stay_in_the_queue() -> None:
    commands = after_wall_time("fail")
    assert commands["periodic_remove"] == HELD_BY_LIMIT
    assert "79" not in commands["on_exit_remove"]


def test_expressions_of_the_users_own_stand() -> None:
    commands = after_wall_time("hold", on_exit_hold="ExitCode > 90", max_retries="3")
    assert commands["on_exit_hold"] == "ExitCode > 90"
    assert "on_exit_remove" not in commands


def test_a_plan_that_says_nothing_of_time_changes_nothing() -> None:
    assert not {"periodic_release", "periodic_remove", "on_exit_hold"} & set(wrapped())
