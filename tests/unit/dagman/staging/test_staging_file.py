"""Staging files: what cannot be used is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_cli.dag.instrument import Wanted, instrumented
from htlease_cli.staging.clean_up_job import Program, lease_of, local_program
from htlease_cli.staging.compute_node import script_files, structure
from htlease_cli.staging.dag_text import Layout, dag_text, dagman_config_text, watcher_submit_text
from htlease_dagman.staging.backends.command import SEARCHED
from htlease_dagman.staging.backends.registry import command_rules, open_backend
from htlease_dagman.staging.engine import Adopted
from htlease_dagman.staging.staging_file import StagingFile, read_staging_file
from htlease_dagman.staging.staging_settings import (
    WorkflowSettings,
    read_secret,
    read_settings,
    settings_path,
    write_settings,
)

GOOD = """\
workflow = "run7"

[service]
backend = "command"
submit = ["tx", "submit", "{key}", "{source}", "{destination}"]
poll = ["tx", "poll", "{id}"]
find = ["tx", "find", "{key}"]

[service.words]
done = "^SUCCEEDED"

[places.archive]
path = "/archive"
[places.scratch]
path = "/scratch"

[stage-in]
from = "archive"
to = "scratch"
files = ["input.dat"]

[compute]
submit = "compute.sub"

[clean-up]
submit = "clean-up.sub"

[watch]
watcher = "job"
poll_seconds = 30
"""


def written(folder: Path, text: str) -> Path:
    for name in ("compute.sub", "clean-up.sub"):
        (folder / name).write_text("queue\n")
    path = folder / "staging.toml"
    path.write_text(text)
    return path


def good(folder: Path, old: str = "", new: str = "") -> StagingFile:
    assert old in GOOD
    return read_staging_file(written(folder, GOOD.replace(old, new) if old else GOOD))


def test_a_good_file_is_read(tmp_path: Path) -> None:
    file = good(tmp_path)
    assert file.workflow == "run7"
    assert file.transfer("stage-in").pairs() == [("/archive/input.dat", "/scratch/input.dat")]
    assert (file.watching.watcher, file.watching.poll_seconds) == ("job", 30)
    assert file.compute == tmp_path / "compute.sub"
    assert command_rules(file).find == ("tx", "find", "{key}")


def test_what_is_left_out_has_a_working_default(tmp_path: Path) -> None:
    file = good(tmp_path, '[watch]\nwatcher = "job"\npoll_seconds = 30\n', "")
    assert (file.watching.watcher, file.watching.poll_seconds) == ("job", 30)
    assert file.watching.short_seconds == 300
    assert file.watching.ttl_seconds == 120


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('backend = "command"', "backend = ", 4, "Invalid value"),
        ('workflow = "run7"', 'workflow = "a b"', 1, "contains ' '"),
        ('workflow = "run7"', 'workflo = "run7"', 1, "not known"),
        ('backend = "command"', 'backend = "ftp"', 4, "known are run, command, condor, globus"),
        ('backend = "command"\n', "", 3, "has no backend"),
        ('submit = ["tx"', 'submitt = ["tx"', 5, "not known"),
        ('poll = ["tx", "poll", "{id}"]\n', "", 3, "has no poll command"),
        ('"{id}"', '"{task}"', 6, "{task}"),
        ('poll = ["tx", "poll", "{id}"]', 'poll = "tx"', 6, "list of words"),
        ('done = "^SUCCEEDED"', 'done = "("', 10, "no regular expression"),
        ('done = "^SUCCEEDED"', 'well = "x"', 10, "none of"),
        ('done = "^SUCCEEDED"', 'running = "x"', 9, "nothing says that a task is done"),
        ('path = "/scratch"', "size = 3", 15, "not known"),
        ('from = "archive"', 'from = "arxive"', 18, "the places are archive, scratch"),
        ('files = ["input.dat"]', "files = []", 20, "at least one file"),
        ('files = ["input.dat"]', 'files = ["a", "b"]', 20, "has 2 entries"),
        ('files = ["input.dat"]', 'files = [{ from = "a/", to = "b" }]', 20, "ends with /"),
        ('submit = "compute.sub"', 'submit = "compute.sup"', 23, "there is no file"),
        ('submit = "clean-up.sub"', "submit = 3", 26, "names no submit file"),
        ('watcher = "job"', 'watcher = "cron"', 29, "is none of"),
        ("poll_seconds = 30", 'poll_seconds = "often"', 30, "no number of seconds"),
        ("poll_seconds = 30", "poll_seconds = 0", 30, "no number of seconds"),
        ("poll_seconds = 30", "tasks_max = 0", 30, "no number of tasks"),
        ("poll_seconds = 30", "ttl_seconds = 0.1", 30, "outside"),
        ("poll_seconds = 30", "requirements = 3", 30, "no single line"),
        ("poll_seconds = 30", 'accounting_group = """a\nqueue"""', 30, "no single line"),
        ('files = ["input.dat"]', 'files = ["a"]\nwait = false', 21, "not known"),
        ('[compute]\nsubmit = "compute.sub"\n', "", 1, "[compute] is missing"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(BadConfig) as caught:
        open_backend(read_staging_file(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_a_call_must_end_well_before_the_lease_does(tmp_path: Path) -> None:
    file = good(tmp_path, 'backend = "command"', 'backend = "command"\ncall_seconds = 100')
    with pytest.raises(BadConfig, match="call_seconds"):
        command_rules(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="none.toml: No such file"):
        read_staging_file(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "staging.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="not UTF-8"):
        read_staging_file(path)


def test_the_words_of_a_poll_are_searched_for_people_first() -> None:
    assert SEARCHED[0] == "needs_action"


@pytest.mark.parametrize("watcher", ["job", "chain", "defer"])
def test_the_dag_waits_in_three_ways(tmp_path: Path, watcher: str) -> None:
    file = good(tmp_path, 'watcher = "job"', f'watcher = "{watcher}"')
    layout = Layout(file, "run7", Path("/opt/htlease-dag"))
    lines = dag_text(layout).splitlines()
    assert "PARENT stage-in CHILD compute" in lines
    assert [line for line in lines if line.startswith("FINAL")] == ["FINAL clean-up clean-up.sub"]
    (retry,) = [line for line in lines if line.startswith("RETRY stage-in")]
    assert retry.endswith(" UNLESS-EXIT 3")
    (script,) = [line for line in lines if " PRE stage-in " in line]
    how = ("30", "--once") if watcher == "defer" else ("60", "--begin $DAGID")
    program = "/opt/htlease-dag watch staging.toml stage-in"
    assert script == f"SCRIPT DEFER 75 {how[0]} PRE stage-in {program} {how[1]}"
    assert ("--short" in watcher_submit_text(layout, "stage-in")) == (watcher == "chain")


def test_a_job_that_runs_again_after_its_end_does_not_abort_dagman(tmp_path: Path) -> None:
    layout = Layout(good(tmp_path), "run7", Path("/opt/htlease-dag"))
    assert "CONFIG staging.dagman.config" in dag_text(layout).splitlines()
    assert "DAGMAN_ALLOW_EVENTS = 118" in dagman_config_text(layout).splitlines()


def test_a_watcher_that_was_killed_runs_again(tmp_path: Path) -> None:
    text = watcher_submit_text(Layout(good(tmp_path), "run7", Path("/opt/htlease-dag")), "stage-in")
    assert "on_exit_remove = ExitBySignal =!= true" in text.splitlines()


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("universe = local\nexecutable = /bin/rm\nqueue\n", "/bin/rm"),
        ("Universe = Local\nCmd = $(P)/tidy.sh\nP = bin\nqueue\n", "bin/tidy.sh"),
        ("universe = 12\nexecutable = tidy.sh\nqueue\n", "tidy.sh"),
        ("universe = local\nexecutable = htlease-ep.pyz\nqueue\n", None),
        ("executable = tidy.sh\nqueue\n", None),
        ("queue\n", None),
    ],
)
def test_a_lease_is_put_in_front_of_a_program_of_the_access_point(
    tmp_path: Path, text: str, program: str | None
) -> None:
    path = tmp_path / "clean-up.sub"
    path.write_text(text)
    expected = None if program is None else Program(tmp_path / program, has_own_exit=False)
    assert local_program(path) == expected


def test_a_clean_up_that_was_cut_off_runs_again_unless_its_file_knows_better(
    tmp_path: Path,
) -> None:
    layout = Layout(good(tmp_path), "run7", Path("/opt/htlease-dag"))
    path = tmp_path / "clean-up.sub"
    added = {}
    for own in ("", "on_exit_remove = true\n"):
        path.write_text(f"universe = local\nexecutable = tidy.sh\n{own}queue\n")
        program = local_program(path)
        assert program is not None
        added[own] = lease_of(layout, program, Path("/x.pyz"), "http://ap:1").variables()
    assert [("on_exit_remove" in line) for line in added.values()] == [True, False]


def test_the_clean_ups_program_gets_its_arguments_as_they_are(tmp_path: Path) -> None:
    layout = Layout(good(tmp_path), "run7", Path("/opt/htlease-dag"))
    lease = lease_of(
        layout, Program(Path("/opt/my tidy.sh"), False), Path("/opt/htlease-ep.pyz"), "http://ap:1"
    )
    last = lease.text.splitlines()[-1]
    assert last.endswith("--restart once --ttl 120 -- '/opt/my tidy.sh' \"$@\"")


def test_a_deferred_watcher_is_placed_nowhere(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="requirements: is of no use"):
        good(tmp_path, 'watcher = "job"', 'watcher = "defer"\nrequirements = "true"')


def test_a_stage_out_is_left_alone_only_where_the_file_says_so(tmp_path: Path) -> None:
    stage_out = '[stage-out]\nfrom = "scratch"\nto = "archive"\nfiles = ["a"]\n'
    assert not good(tmp_path, "[compute]", f"{stage_out}[compute]").is_left_alone
    assert good(tmp_path, "[compute]", f"{stage_out}wait = false\n[compute]").is_left_alone
    with pytest.raises(BadConfig, match=r"wait: 'no' is neither true nor false"):
        good(tmp_path, "[compute]", f'{stage_out}wait = "no"\n[compute]')


def test_a_watcher_waits_on_the_access_point_unless_it_is_placed(tmp_path: Path) -> None:
    text = watcher_submit_text(Layout(good(tmp_path), "run7", Path("/opt/htlease-dag")), "stage-in")
    assert "universe = local\n" in text
    assert 'My.HTLeaseRole = "staging"\n' in text
    own = 'requirements = \'Machine == "dtn1"\'\naccounting_group = "staging"\n'
    file = good(tmp_path, 'watcher = "job"\n', f'watcher = "job"\n{own}')
    text = watcher_submit_text(Layout(file, "run7", Path("/opt/htlease-dag")), "stage-in")
    assert "universe = vanilla\n" in text
    assert 'requirements = Machine == "dtn1"\n' in text
    assert "accounting_group = staging\n" in text
    inputs = "staging.toml, staging.htlease.json, staging.token"
    assert f"transfer_input_files = {inputs}\n" in text


def test_where_jobs_do_not_run_their_submit_files_need_not_be(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    for name in ("compute.sub", "clean-up.sub"):
        (tmp_path / name).unlink()
    assert read_staging_file(path, with_jobs=False).transfer("stage-in").pairs()


def test_compute_and_clean_up_have_scripts(tmp_path: Path) -> None:
    file = good(tmp_path)
    (tmp_path / "compute.sub").write_text("executable = x\ntransfer_input_files = in\nqueue 3\n")
    layout = Layout(file, "run7", Path("/opt/htlease-dag"))
    text = dag_text(layout)
    assert f"INCLUDE {layout.names.include}" in text.splitlines()
    lease = lease_of(
        layout, Program(Path("/bin/rm"), True), Path("/opt/htlease-ep.pyz"), "http://ap:1"
    )
    files = script_files(layout, "http://ap:1", tmp_path / "staging.token", text, lease)
    included = files[layout.names.include]
    scripts = [line for line in included.splitlines() if line.startswith("SCRIPT")]
    nodes = [line.partition(" /opt/htlease-dag ")[0].split()[-1] for line in scripts]
    assert nodes == ["compute"] * 3 + ["clean-up"] * 3
    assert "DAG_STATUS $DAG_STATUS" in scripts[3]
    assert "ALL_NODES" not in included
    command = f'VARS clean-up APPEND My.Cmd="\\"{tmp_path}/staging.clean-up.sh\\""'
    assert command in included.splitlines()
    settings = json.loads(files[layout.names.settings])
    assert settings["nodes"] == {"compute": {"jobs": 3}, "clean-up": {"kind": "clean-up"}}
    assert settings["needs_submission"] is True
    assert (settings["workflow"], settings["token_file"]) == ("run7", "staging.token")


def test_the_server_is_told_which_node_follows_which(tmp_path: Path) -> None:
    layout = Layout(good(tmp_path), "run7", Path("/opt/htlease-dag"))
    document = structure(layout, dag_text(layout))
    assert document["nodes"] == {"stage-in": "job", "compute": "job"}
    assert document["dependencies"] == [{"parents": ["stage-in"], "children": ["compute"]}]


def test_a_dag_that_init_has_made_is_not_instrumented_once_more(tmp_path: Path) -> None:
    layout = Layout(good(tmp_path), "run7", Path("/opt/htlease-dag"))
    layout.dag.write_text(dag_text(layout))
    wanted = Wanted(
        layout.dag, "http://ap:1", tmp_path, False, "run7", 60, False, False, layout.program, None
    )
    with pytest.raises(BadConfig, match="was written by `htlease stage init`"):
        instrumented(wanted)


@pytest.mark.parametrize("name", ["my staging.toml", "a$b.toml"])
def test_a_name_that_dagman_would_split_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, GOOD).rename(tmp_path / name)
    with pytest.raises(BadConfig, match="rename it"):
        Layout(read_staging_file(path), "run7", Path("/opt/htlease-dag"))


def test_settings_survive_being_written(tmp_path: Path) -> None:
    path = settings_path(tmp_path / "staging.toml")
    adopted = {"stage-in": Adopted("t1", is_owned=True), "stage-out": Adopted(None, False, "k")}
    settings = WorkflowSettings("run7", "http://x:1", tmp_path / "staging.token", adopted)
    write_settings(path, settings)
    assert read_settings(path) == settings


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"workflow": "x"})])
def test_settings_that_cannot_be_read_say_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "staging.htlease.json"
    path.write_text(text)
    with pytest.raises(BadConfig, match="htlease stage init"):
        read_settings(path)


def test_a_secret_is_its_owners_alone_and_in_no_message(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hush-hush\n")
    path.chmod(0o600)
    assert read_secret(path, "token file") == "hush-hush"
    path.chmod(0o604)
    with pytest.raises(BadConfig) as caught:
        read_secret(path, "token file")
    assert "chmod 600" in str(caught.value) and "hush" not in str(caught.value)
