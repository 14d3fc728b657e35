"""Staging files: what cannot be used is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_admin.dag.instrument import Wanted, instrumented
from htlease_admin.staging.computing import compute_files, structure
from htlease_admin.staging.dag_text import Layout, dag_text, watcher_submit_text
from htlease_dagman.transfers.command import SEARCHED
from htlease_dagman.transfers.engine import Adopted
from htlease_dagman.transfers.service import command_rules, open_backend
from htlease_dagman.transfers.settings import (
    WorkflowSettings,
    read_secret,
    read_settings,
    settings_path,
    write_settings,
)
from htlease_dagman.transfers.staging_file import StagingFile, read_staging_file

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
    assert "PRE_SKIP clean-up 9" in lines
    retries = [line for line in lines if line.startswith("RETRY stage-in")]
    deferred = [line for line in lines if line.startswith("SCRIPT DEFER 75 30 PRE stage-in")]
    assert (len(retries), len(deferred)) == ((0, 1) if watcher == "defer" else (1, 0))
    assert all("UNLESS-EXIT 1" in line for line in retries)
    assert ("--short" in watcher_submit_text(layout, "stage-in")) == (watcher == "chain")


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


def test_the_compute_node_alone_has_scripts(tmp_path: Path) -> None:
    file = good(tmp_path)
    (tmp_path / "compute.sub").write_text("executable = x\ntransfer_input_files = in\nqueue 3\n")
    layout = Layout(file, "run7", Path("/opt/htlease-dag"))
    text = dag_text(layout)
    assert f"INCLUDE {layout.names.include}" in text.splitlines()
    files = compute_files(layout, "http://ap:1", tmp_path / "staging.token", text)
    included = files[layout.names.include]
    scripts = [line for line in included.splitlines() if line.startswith("SCRIPT")]
    assert [" compute /opt/htlease-dag " in line for line in scripts] == [True] * 3
    assert "ALL_NODES" not in included
    settings = json.loads(files[layout.names.settings])
    assert settings["nodes"] == {"compute": {"jobs": 3}}
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
        layout.dag, "http://ap:1", tmp_path, False, "run7", 60, False, False, layout.program
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
