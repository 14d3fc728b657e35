"""Bad input of every kind: a clear message, exit code 78, nothing changed, no traceback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from tests.process.execution import Sandbox
from tests.serving import ServerProcess

BAD_CONFIG = 78

_BAD_PLANS = {
    "[[phase]\n": ["plan.toml: TOML: ", "line 1"],
    "{": ["plan.toml: JSON: "],
    "": ["phase: there is none; write one [[phase]] table"],
    "ttl = 3": ["ttl: is not a key here; the keys are ttl_seconds, takeover, wall_time_seconds"],
    "phase = 3": ["phase: there is none"],
    "phase = [3]": ["phase 1: is not a table"],
    '[[phase]]\nrun = ["x"]': ["phase 1: has no name"],
    '[[phase]]\nname = "a"\nrnu = ["x"]': [
        "phase a: rnu: is not a key here; the keys are name, run"
    ],
    '[[phase]]\nname = "a"\nrun = "x y"': ["phase a: run: 'x y' is not a list of strings"],
    '[[phase]]\nname = "a"\nrun = []': ["phase a: run: names no program"],
    '[[phase]]\nname = "a b"\nrun = ["x"]': ["phase.name: 'a b' contains ' '"],
    '[[phase]]\nname = "a"\nrun = ["x"]\nrestart = "never"': [
        "phase a: restart: 'never' is not one of redo, resume, once"
    ],
    '[[phase]]\nname = "a"\nrun = ["x"]\nexclusive = "yes"': [
        "phase a: exclusive: 'yes' is neither"
    ],
    '[[phase]]\nname = "a"\nrun = ["x"]\n[[phase]]\nname = "b"': [
        "phase b: has no run although others"
    ],
    '[[phase]]\nname = "a"\nrun = ["x"]\n[[phase]]\nname = "a"\nrun = ["x"]': [
        "plan.phases: has two phases named 'a'"
    ],
    'ttl_seconds = "x"\n[[phase]]\nname = "a"\nrun = ["x"]': ["ttl_seconds: 'x' is not a number"],
    'ttl_seconds = 0.1\n[[phase]]\nname = "a"\nrun = ["x"]': ["ttl_seconds: 0.1 is outside 1 to"],
    'takeover = "now"\n[[phase]]\nname = "a"\nrun = ["x"]': ["plan.takeover: 'now' is not one of"],
    '[[phase]]\nname = "a"': ["plan.toml has no run and no command is given"],
}


@pytest.fixture(autouse=True)
def nothing_changed(sandbox: Sandbox, server: ServerProcess) -> Iterator[None]:
    """No subjob comes into being through any of this, and no traceback is shown."""
    yield
    assert "Traceback" not in sandbox.messages
    assert len(sandbox.messages.splitlines()) <= 2
    assert not (sandbox.path / "ran").exists()
    assert not (sandbox.path / ".htlease.json").is_file()


@pytest.mark.parametrize("text", _BAD_PLANS)
def test_a_bad_plan(sandbox: Sandbox, text: str) -> None:
    sandbox.write("plan.toml", text)
    assert sandbox.run("--plan", "plan.toml") == BAD_CONFIG
    for said in _BAD_PLANS[text]:
        assert said in sandbox.messages


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "there is no plan and no command is given; add `-- COMMAND"),
        (["--plan", "nosuch"], "plan nosuch: No such file or directory"),
        (["--frob", "--", "touch", "ran"], "--frob"),
        (["--ttl", "abc", "--", "touch", "ran"], "'abc' is not a number of seconds"),
        (["--ttl", "-1", "--", "touch", "ran"], "-1"),
        (["--ttl", "inf", "--", "touch", "ran"], "'inf' is not a number of seconds"),
        (["--ttl", "0.2", "--", "touch", "ran"], "ttl_seconds: 0.2 is outside 1 to"),
        (["--wait-lease", "60", "--", "touch", "ran"], "--wait-lease 60 is shorter than the lease"),
        (["--kill-grace", "61", "--", "touch", "ran"], "--kill-grace 61 is more than half"),
        (["--profile", "nosuch", "--", "touch", "ran"], "no profile 'nosuch'; there are simple"),
        (["--profile", "cts:x", "--", "touch", "ran"], "cts has no flow 'x'; it has kbase"),
        (["--profile", "cts", "--plan", "p", "--", "touch", "ran"], "give one of them"),
        (["--plan", "p", "--phase-name", "x"], "--phase-name and --restart describe the one phase"),
        (["--phase-name", "a/b", "--", "touch", "ran"], "phase.name: 'a/b' contains '/'"),
        (["--server", "ftp://x", "--", "touch", "ran"], "'ftp://x' is not http://HOST:PORT"),
        (["--server", "http://x:port", "--", "touch", "ran"], "server URL 'http://x:port'"),
        (["--key", "a b/c", "--", "touch", "ran"], "'a b' contains ' '"),
        (["--key", "ä/c", "--", "touch", "ran"], "contains 'ä'"),
        (["--key", "a/b/c", "--", "touch", "ran"], "is not WORKFLOW/SUBJOB with exactly one slash"),
        (["--key", "abc", "--", "touch", "ran"], "'abc' is not WORKFLOW/SUBJOB"),
        (["--key", "a/..", "--", "touch", "ran"], "'..' is a directory"),
    ],
)
def test_a_bad_option(sandbox: Sandbox, options: list[str], said: str) -> None:
    assert sandbox.run(*options) == BAD_CONFIG
    assert said in sandbox.messages


def test_a_command_beside_a_plan_that_runs_its_own(sandbox: Sandbox) -> None:
    sandbox.write("plan.toml", '[[phase]]\nname = "a"\nrun = ["touch", "ran"]')
    assert sandbox.run("--plan", "plan.toml", "--", "touch", "ran") == BAD_CONFIG
    assert "so 'touch' would never run" in sandbox.messages


def test_a_bad_key_in_the_ad_is_named_with_its_file(sandbox: Sandbox) -> None:
    del sandbox.environ["HTLEASE_KEY"]
    sandbox.job_ad["HTLeaseKey"] = "my flow/one"
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert f"HTLeaseKey in {sandbox.path}/.job.ad: workflow: 'my flow' contains" in sandbox.messages


def test_no_ad_and_no_key(sandbox: Sandbox) -> None:
    del sandbox.environ["HTLEASE_KEY"]
    sandbox.job_ad.clear()
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert "nothing names a key; give --key WORKFLOW/SUBJOB, set HTLEASE_KEY" in sandbox.messages


def test_an_odd_global_job_id(sandbox: Sandbox) -> None:
    del sandbox.environ["HTLEASE_KEY"]
    sandbox.job_ad["GlobalJobId"] = "odd"
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert "GlobalJobId 'odd'" in sandbox.messages


def test_no_server_named(sandbox: Sandbox) -> None:
    del sandbox.environ["HTLEASE_URL"]
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert "give --server URL or set HTLEASE_URL" in sandbox.messages


def test_a_wrong_token_is_named_by_its_place(sandbox: Sandbox) -> None:
    sandbox.write("htlease.token", "wrong-secret")
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert f"the token found in {sandbox.path}/htlease.token" in sandbox.messages
    assert "wrong-secret" not in sandbox.messages


def test_a_token_for_something_else(sandbox: Sandbox, server: ServerProcess) -> None:
    sandbox.write("htlease.token", server.token("elsewhere"))
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert "forbidden: this token is for workflow elsewhere" in sandbox.messages


def test_a_token_that_cannot_be_a_header(sandbox: Sandbox) -> None:
    sandbox.write("htlease.token", "two\nlines")
    assert sandbox.run("--wait-server", "0", "--", "touch", "ran") == BAD_CONFIG
    assert "htlease.token" in sandbox.messages


def test_no_token(sandbox: Sandbox) -> None:
    (sandbox.path / "htlease.token").unlink()
    assert sandbox.run("--", "touch", "ran") == BAD_CONFIG
    assert "the server refuses a call without token" in sandbox.messages


def test_a_server_that_is_something_else(sandbox: Sandbox) -> None:
    sandbox.environ["HTLEASE_URL"] += "/elsewhere"
    code = sandbox.run("--wait-server", "1", "--restart", "once", "--", "touch", "ran")
    assert code in (75, BAD_CONFIG)
    assert "the payload was not started" in sandbox.messages or "refuses" in sandbox.messages


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command is given; the commands are run, phase, details, compile, version"),
        (["frob"], "'frob' is not a command"),
        (["phase", "enter", "x"], ".htlease.json has no lease; call this from a payload"),
        (["phase", "leave", "x"], "invalid choice: 'leave'"),
        (["details", "nosuch"], ".htlease.json has no lease"),
        (["details"], "the following arguments are required: file"),
    ],
)
def test_bad_use_of_the_other_commands(sandbox: Sandbox, arguments: list[str], said: str) -> None:
    done = subprocess.run(
        sandbox.argv(*arguments),
        cwd=sandbox.path,
        env=sandbox.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == BAD_CONFIG
    assert said in done.stderr
    assert done.stderr.startswith("htlease: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ('"$HTLEASE" details nosuch', "details nosuch: No such file or directory"),
        ("head -c 70000 /dev/zero | tr '\\0' x | \"$HTLEASE\" details -", "65536 is the limit"),
        ("printf '\\377' | \"$HTLEASE\" details -", "details -: is not UTF-8 text"),
        ('"$HTLEASE" phase enter nosuch', "the plan has no nosuch; it has run"),
        ('"$HTLEASE" phase complete run --artifact x', "--artifact 'x' is not NAME=VALUE"),
    ],
)
def test_bad_use_from_within_a_payload(sandbox: Sandbox, command: str, said: str) -> None:
    assert sandbox.run("--", "sh", "-c", f"{command}; exit $?") == BAD_CONFIG
    assert said in sandbox.messages


def test_a_sandbox_that_cannot_be_written_does_not_stop_the_payload(sandbox: Sandbox) -> None:
    (sandbox.path / ".htlease.json" / "in the way").mkdir(parents=True)
    assert sandbox.run("--", "sh", "-c", "exit 3") == 3
    assert "can save no details" in sandbox.messages
