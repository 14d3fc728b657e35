"""Watchers as processes against a real lease server and a transfer service that can be broken."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.staging import COLLECTIONS, SECRET, Bench
from tests.serving import ServerProcess

LATER, FAILED, BAD_CONFIG = 75, 3, 78


@pytest.fixture(params=["command", "globus"])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, own_server: ServerProcess
) -> Iterator[Bench]:
    bench = Bench(tmp_path / "work", own_server, request.param)
    yield bench
    bench.close()


@pytest.fixture
def command_bench(tmp_path: Path, own_server: ServerProcess) -> Iterator[Bench]:
    bench = Bench(tmp_path / "work", own_server, "command")
    yield bench
    bench.close()


@pytest.fixture
def globus_bench(tmp_path: Path, own_server: ServerProcess) -> Iterator[Bench]:
    bench = Bench(tmp_path / "work", own_server, "globus")
    yield bench
    bench.close()


def test_a_transfer_is_submitted_watched_and_completed(bench: Bench) -> None:
    bench.init()
    status, said = bench.end_of(bench.watch())
    assert status == 0, said
    assert (bench.data / "scratch/input.dat").read_text() == "some input\n"
    assert bench.counts()["submit"] == 1
    document = bench.subjob()
    assert document["outcome"] == "complete"
    task = bench.record()["external_id"]
    completed = bench.server.events(bench.key, "phase-completed")
    assert [event["artifacts"]["task"] for event in completed] == [task]

    status, said = bench.end_of(bench.watch(starts=1))
    assert (status, bench.counts()["submit"]) == (0, 1), said


def test_of_two_watchers_at_once_one_acts(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    # Neither knows that it is newer than the other.
    watchers = [bench.watch(starts=None), bench.watch(starts=None)]
    bench.until_task()
    bench.until_looks(3)
    assert len(bench.server.events(bench.key, "lease-acquired")) == 1
    bench.service.control(paused=False)
    assert [bench.end_of(watcher)[0] for watcher in watchers] == [0, 0]
    assert (bench.counts()["submit"], bench.counts()["accepted"]) == (1, 1)
    assert len(bench.server.events(bench.key, "lease-acquired")) == 1


def test_a_later_watcher_takes_over_from_a_running_one(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    older = bench.watch(starts=0)
    task = bench.until_task()
    newer = bench.watch(starts=1)
    assert bench.end_of(older)[0] == FAILED
    bench.service.control(paused=False)
    status, said = bench.end_of(newer)
    assert status == 0, said
    assert (bench.record()["external_id"], bench.counts()["submit"]) == (task, 1)


def test_short_watchers_hand_the_task_on(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    for starts in range(3):
        assert bench.end_of(bench.watch("--short", starts=starts))[0] == LATER
    for _ in range(2):
        assert bench.end_of(bench.watch("--once", starts=0))[0] == LATER
    bench.service.control(paused=False)
    task = bench.record()["external_id"]
    bench.until(lambda: bench.service.control()["tasks"][task] == "SUCCEEDED", "the transfer")
    assert bench.end_of(bench.watch("--once", starts=0))[0] == 0
    assert bench.counts()["accepted"] == 1


def test_a_watcher_that_is_told_to_end_leaves_the_task_alone(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    bench.until_task()
    watcher.terminate()
    assert bench.end_of(watcher)[0] == LATER
    assert bench.subjob()["status"] == "abandoned"
    assert bench.counts()["cancel"] == 0


def test_a_killed_watcher_is_followed_by_one_that_finds_the_task(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    task = bench.until_task()
    watcher.kill()
    bench.service.control(paused=False)
    status, said = bench.end_of(bench.watch(starts=1))
    assert status == 0, said
    assert (bench.record()["external_id"], bench.counts()["submit"]) == (task, 1)


def test_a_lost_reply_is_resolved_before_a_second_submission(bench: Bench) -> None:
    bench.service.control(lose_replies=1)
    bench.init()
    status, said = bench.end_of(bench.watch())
    assert status == 0, said
    assert bench.counts()["accepted"] == 1
    assert bench.counts()["submit"] == 1
    assert bench.counts()["find"] == 1


def test_a_task_is_on_record_although_the_lease_server_was_away(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    bench.server.stop(signal.SIGKILL)
    watcher = bench.watch()
    bench.server.start()
    bench.until_task()
    bench.server.stop(signal.SIGKILL)
    bench.until_looks(3)
    bench.service.control(paused=False)
    bench.until_looks(1)
    assert watcher.poll() is None
    bench.server.start()
    status, said = bench.end_of(watcher)
    assert status == 0, said
    assert bench.subjob()["outcome"] == "complete"
    assert bench.counts()["submit"] == 1


def test_a_service_that_is_away_fails_nothing(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    task = bench.until_task()
    bench.service.control(away=True)
    bench.until(lambda: bench.counts()["away"] >= 5, "looks in vain")
    assert watcher.poll() is None
    assert not (bench.folder / "notices.txt").exists()
    bench.service.control(away=False, paused=False)
    status, said = bench.end_of(watcher)
    assert status == 0, said
    assert (bench.record()["external_id"], bench.counts()["submit"]) == (task, 1)
    assert bench.record()["poll_errors"] >= 4


def test_a_busy_service_is_asked_again(bench: Bench) -> None:
    bench.service.control(busy=2)
    bench.init()
    status, said = bench.end_of(bench.watch())
    assert status == 0, said
    assert (bench.counts()["submit"], bench.counts()["accepted"]) == (3, 1)


def test_a_failed_task_fails_the_subjob_with_its_reason(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    bench.until_task()
    bench.service.control(fail="fatal")
    status, said = bench.end_of(watcher)
    assert status == 3
    assert "PERMISSION_DENIED" in said
    assert bench.subjob()["outcome"] == "failed"
    closed = bench.server.events(bench.key, "subjob-closed")
    assert "PERMISSION_DENIED" in closed[-1]["reason"]


def test_a_failed_transfer_is_made_again_only_for_a_new_submission_of_its_dag(
    bench: Bench,
) -> None:
    begin = ("--begin", "5")
    bench.init()
    bench.service.control(paused=True)
    assert bench.end_of(bench.watch(*begin, cluster=5))[0] == 0
    watcher = bench.watch()
    bench.until_task()
    bench.service.control(fail="fatal")
    assert bench.end_of(watcher)[0] == FAILED

    bench.service.control(fail=None, paused=False)
    # RETRY queues another job; then DAGMan is started again, from its rescue DAG.
    assert bench.end_of(bench.watch(cluster=8))[0] == FAILED
    status, said = bench.end_of(bench.watch(*begin, cluster=5, starts=1))
    assert status == FAILED
    assert "submit it again" in said
    assert (bench.subjob()["outcome"], bench.counts()["submit"]) == ("failed", 1)

    assert bench.end_of(bench.watch(*begin, cluster=9))[0] == 0
    status, said = bench.end_of(bench.watch(cluster=10))
    assert status == 0, said
    assert (bench.subjob()["outcome"], bench.counts()["submit"]) == ("complete", 2)


def test_a_deferred_watcher_begins_each_submission_itself(command_bench: Bench) -> None:
    bench = command_bench
    bench.init()
    bench.service.control(paused=True)
    assert bench.end_of(bench.watch("--once", cluster=5))[0] == LATER
    bench.service.control(fail="fatal")
    bench.until(lambda: bench.end_of(bench.watch("--once", cluster=5))[0] == FAILED, "its end")
    bench.service.control(fail=None, paused=False)
    assert bench.end_of(bench.watch("--once", cluster=5, starts=1))[0] == FAILED
    assert bench.counts()["submit"] == 1
    bench.until(lambda: bench.end_of(bench.watch("--once", cluster=9))[0] == 0, "its good end")
    assert bench.counts()["submit"] == 2


@pytest.mark.parametrize("credential", ["token", "inactive", "consent"])
def test_an_expired_credential_waits_and_tells_once(bench: Bench, credential: str) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    bench.until_task()
    bench.service.control(credential=credential)
    bench.until(lambda: bench.record().get("noticed"), "the notice")
    if credential == "inactive":
        bench.until_looks(3)
    else:
        bench.until(lambda: bench.counts()["turned_away"] > 4, "more refused calls")
    watcher.kill()
    watcher = bench.watch(starts=1)
    bench.until(lambda: bench.subjob()["fence"] == 2, "the next watcher")
    assert bench.record()["state"] == "needs-action"
    notices = bench.folder / "notices.txt"
    assert notices.read_text().count("waits for you") == 1
    assert bench.record()["action"] in notices.read_text()
    bench.service.control(credential="ok", paused=False)
    status, said = bench.end_of(watcher)
    assert status == 0, said
    assert notices.read_text().count("waits for you") == 1
    assert bench.counts()["accepted"] == 1


def test_a_cancelled_subjob_takes_its_task_along(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    task = bench.until_task()
    done = bench.htlease("cancel", bench.key)
    assert done.returncode == 0, done.stderr
    assert bench.end_of(watcher)[0] == FAILED
    assert bench.service.control()["tasks"][task] == "FAILED"


@pytest.mark.parametrize(("options", "cancelled"), [((), 0), (("--own",), 1)])
def test_an_adopted_task_is_cancelled_only_when_told(
    bench: Bench, options: tuple[str, ...], cancelled: int
) -> None:
    bench.service.control(paused=True)
    source, target = bench.data / "archive/input.dat", bench.data / "scratch/input.dat"
    task = bench.service.submit([(str(source), str(target))])
    bench.init()
    done = bench.htlease("stage", "adopt", "staging.toml", task, *options)
    assert done.returncode == 0, done.stderr
    watcher = bench.watch()
    bench.until(lambda: bench.record().get("external_id") == task, "the adopted task")
    bench.htlease("cancel", bench.key)
    bench.end_of(watcher)
    assert bench.counts()["cancel"] == cancelled
    assert bench.counts()["submit"] == 1  # the one by hand


def test_adopting_an_unknown_task_is_refused(bench: Bench) -> None:
    bench.init()
    before = (bench.folder / "staging.htlease.json").read_text()
    done = bench.htlease("stage", "adopt", "staging.toml", "no-such-task")
    assert done.returncode == BAD_CONFIG
    assert "knows no task no-such-task" in done.stderr
    assert (bench.folder / "staging.htlease.json").read_text() == before


def test_no_credential_gets_into_any_file_or_message(bench: Bench) -> None:
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    bench.until_task()
    bench.service.control(credential="token")
    bench.until(lambda: bench.record().get("noticed"), "the notice")
    bench.service.control(credential="ok", paused=False)
    said = bench.end_of(watcher)[1]
    token = (bench.folder / "staging.token").read_text().strip()
    for secret, home in ((SECRET, bench.credential), (token, bench.folder / "staging.token")):
        assert secret not in said
        everywhere = [*bench.folder.parent.rglob("*")]
        found = [p for p in everywhere if p.is_file() and secret.encode() in p.read_bytes()]
        assert found == [home]
        assert home.stat().st_mode & 0o077 == 0


def test_a_credential_that_others_can_read_is_not_used(globus_bench: Bench) -> None:
    bench = globus_bench
    bench.init()
    bench.log_in(SECRET, mode=0o644)
    watcher = bench.watch()
    action = bench.until(lambda: bench.record().get("action"), "the action")
    assert "chmod 600" in action and SECRET not in action
    assert bench.counts()["submit"] == 0
    bench.log_in(SECRET)
    assert bench.end_of(watcher)[0] == 0


def test_a_refresh_token_is_good_for_as_long_as_it_is_accepted(globus_bench: Bench) -> None:
    bench = globus_bench
    tokens = {"refresh_token": "hush-refresh", "client_id": COLLECTIONS[0]}
    refresh = bench.folder / "refresh.json"
    refresh.touch(mode=0o600)
    refresh.write_text(json.dumps(tokens))
    named = f'credential = "refresh.json"\nauth_url = "{bench.service.url}"'
    bench.write('credential = "credential"', named)
    bench.service.control(paused=True)
    bench.init()
    watcher = bench.watch()
    bench.until_task()
    bench.service.control(credential="token")
    action = bench.until(lambda: bench.record().get("action"), "the action")
    assert "log in again" in action and "hush" not in action
    bench.service.control(credential="ok", paused=False)
    status, said = bench.end_of(watcher)
    assert status == 0, said
    assert bench.service.counts()["refresh"] > 1


def test_a_workflow_token_that_others_can_read_is_not_used(command_bench: Bench) -> None:
    command_bench.init()
    (command_bench.folder / "staging.token").chmod(0o640)
    status, said = command_bench.end_of(command_bench.watch())
    assert status == FAILED
    assert "chmod 600" in said and "Traceback" not in said


def test_a_place_without_permission_is_named_with_its_line(globus_bench: Bench) -> None:
    bench = globus_bench
    bench.write(f'path = "{bench.data}/scratch"', 'path = "/root/else/where"')
    done = bench.htlease("stage", "init", "staging.toml", "--program", "/bin/true")
    assert done.returncode == BAD_CONFIG
    line = 1 + bench.file.read_text().splitlines().index("[places.scratch]")
    assert f"staging.toml:{line}: [places.scratch]: /root/else/where may not be used" in done.stderr
    assert not (bench.folder / "staging.dag").exists()


def test_a_tool_that_copies_while_one_waits_is_run_again_by_the_next_watcher(
    tmp_path: Path, own_server: ServerProcess
) -> None:
    bench = Bench(tmp_path / "work", own_server, "run")
    hold = bench.data / "archive.hold"
    hold.touch()
    try:
        bench.init()
        killed = bench.watch()
        first = bench.until_task()
        killed.terminate()
        assert bench.end_of(killed)[0] == LATER
        watcher = bench.watch(starts=1)
        # Between two processes there is an intent on record, and no ID.
        known = (None, first)
        bench.until(lambda: bench.record().get("external_id") not in known, "the next process")
        hold.unlink()
        status, said = bench.end_of(watcher)
    finally:
        hold.unlink(missing_ok=True)  # or the tool would go on, and its output with it
        bench.close()
    assert status == 0, said
    assert (bench.data / "scratch/input.dat").read_text() == "some input\n"
    assert bench.record()["generation"] == 1


def test_nothing_is_made_when_the_server_cannot_record_it(command_bench: Bench) -> None:
    before = set(command_bench.folder.iterdir())
    command_bench.server.stop()
    done = command_bench.htlease("stage", "init", "staging.toml", "--program", "/bin/true")
    assert done.returncode == LATER
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert set(command_bench.folder.iterdir()) == before


def test_making_a_workflow_again_keeps_its_name(command_bench: Bench) -> None:
    command_bench.init()
    key = command_bench.key
    command_bench.write("poll_seconds = 0.2", "poll_seconds = 0.3")
    command_bench.init()
    assert command_bench.key == key


def test_a_file_of_the_users_is_not_overwritten(command_bench: Bench) -> None:
    (command_bench.folder / "staging.dag").write_text("JOB mine mine.sub\n")
    done = command_bench.htlease("stage", "init", "staging.toml", "--program", "/bin/true")
    assert done.returncode == BAD_CONFIG
    assert (command_bench.folder / "staging.dag").read_text() == "JOB mine mine.sub\n"
    assert not (command_bench.folder / "staging.token").exists()
