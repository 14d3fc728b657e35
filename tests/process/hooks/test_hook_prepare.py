"""The PREPARE hooks as processes: what they answer HTCondor, and how long they may take."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator

import pytest
from tests.process.hooking import SECRETS, VERSIONS, Called, HookedStart, Hooks
from tests.serving import ServerProcess

from htlease_hooks.starter.environment import job_environment

NewStart = Callable[..., HookedStart]


def environment_in(called: Called) -> dict[str, str]:
    return job_environment(called.stdout)


@pytest.mark.parametrize("version", VERSIONS)
def test_prepare_takes_the_lease_and_adds_to_the_environment(
    new_start: NewStart, version: str
) -> None:
    start = new_start(version=version)
    called = start.prepare("prepare_job_before_transfer")
    assert (called.status, called.code) == (0, 0), called
    added = environment_in(called)
    assert (added.pop("A"), added.pop("B"), added.pop("C")) == ("1", "two words", 'say"hi')
    assert added["HTLEASE_KEY"] == start.key
    assert added["HTLEASE_FENCE"] == "1"
    assert added["HTLEASE_ATTEMPT"] == f"{start.changes['GlobalJobId']}@1.1"
    assert added["HTLEASE_OUTPUT_PREFIX"] == "attempt-1-fence-1"
    assert start.prepare("prepare_job").stdout == "", "the second hook has nothing to add"
    grant = start.events("lease-acquired")
    assert [event["fence"] for event in grant] == [1]
    assert grant[0]["place"]["slot"] == "slot1_1@ep2.test.pool"  # type: ignore[index]
    assert start.server.subjob(start.key)["phases"][0]["entries"] == 0, "nothing runs yet"


def test_what_hooks_leave_is_the_job_users_alone_and_in_a_folder(new_start: NewStart) -> None:
    start = new_start()
    start.prepare()
    new = {path.name for path in start.path.iterdir()} - {".job.ad", ".machine.ad", "htlease.token"}
    assert new == {".htlease-hooks"}, "HTCondor would transfer a file"
    folder = start.path / ".htlease-hooks"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_before_the_transfer_a_token_may_still_be_missing(new_start: NewStart) -> None:
    start = new_start()
    (start.path / "htlease.token").unlink()
    assert start.prepare("prepare_job_before_transfer").stdout == ""
    start.transfer_token()
    called = start.prepare("prepare_job")
    assert environment_in(called)["HTLEASE_FENCE"] == "1"


def test_a_start_without_any_token_follows_the_policy(new_start: NewStart) -> None:
    start = new_start(token="")
    assert start.prepare().status == 0
    held = new_start(token="").prepare("prepare_job", "--on-no-server=hold")
    assert (held.status, held.code) == (73, 173)
    assert "has no token" in held.attributes["HookStatusMessage"]


def test_an_earlier_lease_that_is_live_sends_the_start_back_to_idle(new_start: NewStart) -> None:
    start = new_start()
    nonce = os.urandom(12).hex()
    start.server.command(start.key, "acquire", kind="operator", nonce=nonce, ttl_seconds=60)
    called = start.prepare("prepare_job_before_transfer")
    assert (called.status, called.code) == (1, 601)
    message = called.attributes["HookStatusMessage"]
    assert message.startswith(f"{start.key}: the lease of operator")
    assert message.endswith("it starts by itself when that lease has ended")
    assert message in called.stderr
    assert called.seconds >= 2, "it waited in place first"


def test_a_lease_that_ends_while_the_start_waits_is_taken(new_start: NewStart) -> None:
    start = new_start()
    nonce = os.urandom(12).hex()
    start.server.command(start.key, "acquire", kind="operator", nonce=nonce, ttl_seconds=1)
    assert environment_in(start.prepare())["HTLEASE_FENCE"] == "2"


def _need(start: HookedStart, flag: str) -> None:
    """Let the job's one phase need a flag."""
    plan = {"phases": [{"name": "run", "needs": [flag]}]}
    start.server.ask(
        "PUT", f"workflows/{start.key.split('/')[0]}", {"request_id": flag, "plan": plan}
    )


def test_a_flag_that_is_down_sends_the_start_back_to_idle_without_a_mark(
    new_start: NewStart,
) -> None:
    start = new_start(key="hooks-flagged/s")
    _need(start, "hpss-hooks")
    start.server.ask("PUT", "flags/hpss-hooks", {"is_up": False, "reason": "tape robot"})
    called = start.prepare("prepare_job_before_transfer")
    assert (called.status, called.code) == (4, 604)
    message = called.attributes["HookStatusMessage"]
    assert message.startswith("hooks-flagged/s: run needs hpss-hooks, which is down: tape robot")
    assert message.endswith("it starts by itself when the flag is up again")
    assert called.seconds >= 2, "it waited in place first"
    start.server.ask("PUT", "flags/hpss-hooks", {"is_up": True})
    again = new_start(key=start.key)
    assert environment_in(again.prepare())["HTLEASE_FENCE"] == "1"
    assert len(start.server.events(start.key, "lease-acquired")) == 1


def test_a_superseded_start_is_held(new_start: NewStart) -> None:
    newer = new_start(NumShadowStarts=5)
    assert newer.prepare().code == 0
    older = new_start(key=newer.key, NumShadowStarts=3, GlobalJobId=newer.changes["GlobalJobId"])
    called = older.prepare()
    assert (called.status, called.code) == (74, 174)
    assert "a later attempt has started" in called.attributes["HookStatusMessage"]


def test_a_cancelled_subjob_holds_the_job(new_start: NewStart) -> None:
    start = new_start()
    assert start.prepare().code == 0
    start.server.command(start.key, "cancel")
    again = new_start(key=start.key, NumShadowStarts=2, GlobalJobId=start.changes["GlobalJobId"])
    called = again.prepare()
    assert (called.status, called.code) == (75, 175)
    assert "the subjob is cancelled" in called.attributes["HookStatusMessage"]
    before_it_runs = start.prepare("prepare_job")
    assert (before_it_runs.status, before_it_runs.code) == (75, 175)


def test_a_complete_subjob_makes_the_job_end_well(new_start: NewStart) -> None:
    start = new_start()
    nonce = os.urandom(12).hex()
    start.server.command(start.key, "acquire", kind="operator", nonce=nonce, ttl_seconds=60)
    start.server.command(start.key, "settle", outcome="complete", fence=1, nonce=nonce)
    called = start.prepare("prepare_job_before_transfer")
    assert (called.status, called.code) == (0, 0)
    assert called.attributes["Cmd"] == "/bin/true"
    assert called.attributes["TransferExecutable"] == "false"
    assert called.attributes["Out"] == "/dev/null"
    assert start.prepare("prepare_job").stdout == "", "nothing to add to that"
    late = new_start(key=start.key).prepare("prepare_job")
    assert (late.attributes["Cmd"], "Out" in late.attributes) == ("/bin/true", False)
    named = new_start(key=start.key).prepare("prepare_job", TransferOutput="result")
    assert (named.status, named.code) == (76, 176)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--wait=5", "--wait is no option"),
        ("--ttl=soon", "--ttl=soon is not a number"),
        ("--ttl=0.1", "--ttl: "),
        ("--on-no-server=cry", "--on-no-server=cry is not one of run, idle, hold"),
        ("server", "argument 'server' of the hook is not --NAME=VALUE"),
        ("--server=not a url", "server URL 'not a url'"),
    ],
)
def test_a_wrong_configuration_holds_the_job_and_says_what_is_wrong(
    new_start: NewStart, option: str, problem: str
) -> None:
    called = new_start().prepare("prepare_job", option)
    assert (called.status, called.code) == (71, 171)
    assert problem in called.attributes["HookStatusMessage"]


def test_a_refused_token_holds_the_job_and_is_not_shown(new_start: NewStart) -> None:
    start = new_start(token="not-a-token-of-this-server")
    called = start.prepare()
    assert (called.status, called.code) == (72, 172)
    assert "htlease.token" in called.attributes["HookStatusMessage"]
    assert start.token not in called.stdout + called.stderr


@pytest.mark.parametrize("text", ["", "\n", "no ad at all", "\x00\xff\x80", 'Cmd = "/bin/true"'])
def test_an_input_that_names_no_job_is_refused(new_start: NewStart, text: str) -> None:
    start = new_start()
    called = start.call("prepare_job", text, f"--server={start.server.url}")
    assert (called.status, called.code) == (77, 177)


@pytest.mark.parametrize(("name", "value"), [("HTLease", False), ("InteractiveJob", True)])
def test_jobs_left_alone_are_not_known_to_the_server(
    new_start: NewStart, name: str, value: bool
) -> None:
    start = new_start()
    start.changes[name] = value
    assert start.prepare().stdout == ""
    start.update()
    assert not start.server.knows(start.key)


def test_an_environment_that_cannot_be_read_stays_as_it_is(new_start: NewStart) -> None:
    called = new_start().prepare(Environment="A='not closed")
    assert (called.status, called.stdout) == (0, "")
    assert "environment cannot be read" in called.stderr


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("server", ["dead", "silent", "frozen"])
@pytest.mark.parametrize(
    ("policy", "status", "code"), [("run", 0, 0), ("idle", 2, 602), ("hold", 73, 173)]
)
def test_without_a_server_the_policy_decides_in_time(
    new_start: NewStart,
    own_server: ServerProcess,
    silent_server: str,
    server: str,
    policy: str,
    status: int,
    code: int,
) -> None:
    start = new_start(server=own_server)
    url = own_server.url
    if server == "dead":
        own_server.stop()
    elif server == "frozen":
        own_server.signal(signal.SIGSTOP)
    else:
        url = silent_server
    called = start.prepare("prepare_job", f"--on-no-server={policy}", server=url)
    assert (called.status, called.code) == (status, code), called
    assert called.seconds < 2 + 2 + 2 + 20, "the limits of prepare(), and a busy machine"


def test_a_start_that_ran_without_a_server_is_leased_by_its_updates(
    new_start: NewStart, own_server: ServerProcess
) -> None:
    start = new_start(server=own_server)
    own_server.stop()
    assert start.prepare("prepare_job_before_transfer").code == 0
    again = start.prepare("prepare_job")
    assert again.seconds < 2, "a server that was away is not waited for a second time"
    start.update()
    own_server.start()
    start.update()
    assert [event["fence"] for event in start.events("lease-acquired")] == [1]
    start.update()
    assert start.entered() == [1]


def test_a_lease_that_ended_during_the_transfer_is_noticed(new_start: NewStart) -> None:
    start = new_start()
    start.options = ["--ttl=1", "--wait-lease=0", "--wait-server=2"]
    assert start.prepare("prepare_job_before_transfer").code == 0
    newer = new_start(key=start.key, NumShadowStarts=9, GlobalJobId=start.changes["GlobalJobId"])
    newer.options = ["--ttl=30", "--wait-lease=5", "--wait-server=2"]
    newer.changes["RemoteHost"] = "elsewhere"
    assert newer.prepare().code == 0
    called = start.prepare("prepare_job")
    assert (called.status, called.code) == (74, 174)


def test_the_sites_own_hook_gets_the_same_and_is_merged(new_start: NewStart, hooks: Hooks) -> None:
    start = new_start()
    own = hooks.program(
        "own",
        '#!/bin/sh\ncat > input; env > environment; echo "$@" > arguments\n'
        "echo 'Environment = \"OWN=1\"'; echo 'Rank = 7'\n",
    )
    called = start.prepare("prepare_job", f"--chain-prepare={own}", "--chain-args=-a 'b c'")
    assert called.code == 0
    assert (start.path / "input").read_text() == start.ad("first-start")
    assert (start.path / "arguments").read_text() == "-a b c\n"
    seen = (start.path / "environment").read_text()
    assert all(f"{name}={value}\n" in seen for name, value in SECRETS.items()), (
        "as HTCondor gave it"
    )
    assert environment_in(called).items() >= {"OWN": "1", "HTLEASE_FENCE": "1"}.items()
    assert called.attributes["Rank"] == "7"


@pytest.mark.parametrize(
    ("text", "status", "code", "message"),
    [
        (
            "echo 'HookStatusCode = 333'; echo 'HookStatusMessage = \"broken\"'; exit 9",
            9,
            333,
            "broken",
        ),
        ("exit 4", 4, 0, None),
        ("kill -9 $$", 100, 400, "died of signal 9"),
        ("sleep 60", 100, 400, "did not end in 1 s"),
    ],
)
def test_the_first_failure_wins_and_takes_no_lease(
    new_start: NewStart, hooks: Hooks, text: str, status: int, code: int, message: str | None
) -> None:
    start = new_start()
    own = hooks.program("own", f"#!/bin/sh\n{text}\n")
    called = start.prepare("prepare_job", f"--chain-prepare={own}", "--chain-limit=1")
    assert (called.status, called.code) == (status, code)
    assert message is None or message in called.attributes["HookStatusMessage"]
    assert not start.server.knows(start.key)


def test_a_site_hook_that_is_not_there_is_a_fault_of_the_execution_point(
    new_start: NewStart,
) -> None:
    called = new_start().prepare("prepare_job", "--chain-prepare=/no/such/hook")
    assert (called.status, called.code) == (100, 400)
    assert "/no/such/hook cannot be run" in called.attributes["HookStatusMessage"]
