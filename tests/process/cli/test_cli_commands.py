"""The `htlease` command as a process, against a real server process."""

from __future__ import annotations

import http.server
import json
import re
import threading
from pathlib import Path

import pytest
from tests.process.command_lab import Lab

from htlease.errors import Refused
from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, SubjobKey
from htlease.wire.lease_client import LeaseClient

PLAN = """\
[[phase]]
name = "stage-in"
run = ["true"]
[[phase]]
name = "compute"
restart = "resume"
run = ["sh", "-c", "exit 3"]
"""


def test_a_run_of_the_wrapper_can_be_listed_shown_told_explained_and_found(
    lab: Lab, pyz: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    for _ in range(2):
        done = lab.wrapped(pyz, "read/one", "--plan", "plan.toml", cwd=tmp_path)
        assert done.returncode == 3, done.stderr
    assert re.search(r"^read +committing +1 exited", lab.ok("list"), re.MULTILINE)
    assert re.search(r"^one +exited +compute ", lab.ok("list", "read"), re.MULTILINE)
    assert re.search(r"^one +exited +compute ", lab.ok("show", "read"), re.MULTILINE)
    shown = lab.ok("show", "read/one")
    assert re.search(r"^status +exited$", shown, re.MULTILINE)
    assert re.search(r"^exit +exit code 3$", shown, re.MULTILINE)
    assert re.search(r"^stage-in +redo +2 .*yes$", shown, re.MULTILINE)
    told = lab.ok("history", "read/one")
    assert [line.split()[2] for line in told.splitlines() if "the lease" in line] == ["1", "2"]
    assert "failed with exit code 3" in told
    explained = lab.ok("explain", "read/one", "--attempt", "2")
    assert "because the payload of attempt 1 had ended and was not committed" in explained
    assert "Attempt 1 " not in explained
    assert "read/one" in lab.ok("find", "one")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("list",), "workflows"),
        (("list", "json"), "subjobs"),
        (("show", "json"), "subjobs"),
        (("show", "json/a"), "attempts"),
        (("history", "json/a"), "events"),
        (("explain", "json/a"), "stories"),
        (("find", "a"), "subjobs"),
        (("doctor",), "checks"),
    ],
)
def test_every_reading_command_prints_json(lab: Lab, arguments: tuple[str, ...], part: str) -> None:
    lab.client("json/a").call(m.Enroll(retry=0))
    lab.client("json/a").acquire(m.Acquire("0123456789abcdef", evidence=Evidence(1, 1)))
    done = lab.run(*arguments, "--json")
    assert json.loads(done.stdout)[part], done.stderr
    assert "0123456789abcdef" not in done.stdout


def test_ended_jobs_say_what_they_wait_for_and_are_committed_together(
    lab: Lab, pyz: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    for subjob in ("a", "b"):
        done = lab.wrapped(pyz, f"ended/{subjob}", "--", "true", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    lab.wrapped(pyz, "ended/bad", "--plan", "plan.toml", cwd=tmp_path)
    assert "`htlease show WORKFLOW` says what to run" in lab.ok("list")
    for command in ("list", "show"):
        assert "3 exited: " in lab.ok(command, "ended")
        assert "`htlease commit ended`" in lab.ok(command, "ended")
    assert "htlease commit ended/a" in lab.ok("explain", "ended/a")
    refusal = lab.refused(1, "commit", "ended")
    assert "ended/bad did not end with 0" in refusal and "explain ended/bad" in refusal
    states = {
        one["subjob"]: one["status"]
        for one in json.loads(lab.ok("show", "ended", "--json"))["subjobs"]
    }
    assert states == {"a": "complete", "b": "complete", "bad": "exited"}
    lab.ok("settle", "ended/bad", "--outcome", "failed")
    assert "nothing of ended waits" in lab.ok("commit", "ended")
    lab.refused(1, "commit", "no-such-workflow")


def test_a_plan_file_is_shown_with_its_defaults(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    shown = lab.ok("plan", "check", str(file))
    assert re.search(r"^stage-in +redo +no +- +true$", shown, re.MULTILINE)
    assert "redo: every attempt runs it again; what a phase without `restart` does." in shown
    assert "once:" not in shown and "A lease lasts 120 s" in shown
    file.write_text('[[phase]]\nname = "a"\nrestart = "often"\n')
    assert "restart: 'often' is not one of" in lab.refused(78, "plan", "check", str(file))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workflow", "w", "--ttl", "400d"), "--ttl: 34560000 is not 1 to 31622400 seconds"),
        (("--workflow", "w", "--job", "ap#1.0#1"), "--job is a submission of one subjob"),
        (("--workflow", "w", "--subjob", "s", "--start", "2"), "give --job too"),
        (("--role", "reader", "--workflows", "a*b"), "--workflows: "),
        (("--role", "submitter"), "--name: is missing"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_by_its_option(
    lab: Lab, arguments: tuple[str, ...], said: str
) -> None:
    done = lab.run("token", "mint", *arguments)
    assert done.returncode in (1, 2) and said in done.stderr
    assert "_id" not in done.stderr and "ttl_seconds" not in done.stderr


def test_a_listing_goes_past_the_servers_page(lab: Lab) -> None:
    client = lab.client("many/0")
    for index in range(501):
        LeaseClient(client.transport, SubjobKey("many", f"s{index}")).call(m.Enroll())
    document = json.loads(lab.ok("list", "many", "--json"))
    assert len(document["subjobs"]) == 501
    assert "next" not in document


def test_a_minted_token_stands_alone_and_reaches_one_subjob_only(lab: Lab) -> None:
    minted = lab.ok("token", "mint", "--workflow", "w", "--subjob", "a", "--ttl", "90s")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", minted)
    lab.client("w/a").call(m.Enroll())
    lab.client("w/b").call(m.Enroll())
    token = {"BEARER_TOKEN": minted.strip(), "XDG_STATE_HOME": "/nonexistent"}
    assert "w/a" in lab.ok("show", "w/a", more=token)
    assert "w/a" in lab.refused(78, "show", "w/b", more=token)
    assert "admin token" in lab.refused(78, "token", "mint", "--workflow", "w", more=token)
    assert "admin token" in lab.refused(78, "list", more=token)


@pytest.mark.parametrize("ttl", ["1", "0s", "1w", "-1h", "soon"])
def test_a_duration_that_is_none_is_a_usage_error(lab: Lab, ttl: str) -> None:
    done = lab.run("token", "mint", "--workflow", "w", f"--ttl={ttl}")
    assert done.returncode == 2
    said = "is no time at all" if ttl == "0s" else "is not one like 90s, 15m, 1h or 7d"
    assert said in done.stderr


def test_a_workflow_is_made_changed_and_copied_but_a_template_never_runs(
    lab: Lab, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    lab.ok("workflow", "put", "tpl", "--plan", plan, "--label", "site=x", "--template")
    lab.ok("workflow", "put", "copy", "--copy-of", "tpl")
    copy = json.loads(lab.ok("show", "copy", "--json"))
    assert [phase["name"] for phase in copy["plan"]["phases"]] == ["stage-in", "compute"]
    assert copy["labels"] == {"site": "x"} and not copy["template"]
    with pytest.raises(Refused, match="template"):
        lab.client("tpl/a").call(m.Enroll())
    assert "there are simple" in lab.refused(78, "workflow", "put", "w2", "--profile", "nope")
    assert "no workflow gone" in lab.refused(1, "workflow", "put", "w2", "--copy-of", "gone")


def test_cancel_says_whom_it_stops_and_is_idempotent(lab: Lab) -> None:
    client = lab.client("op/cancel")
    lease = client.acquire(m.Acquire("n" * 16, evidence=Evidence(1, 1), host="ep1"))
    said = lab.ok("cancel", "op/cancel", "--reason", "wrong input")
    assert "op/cancel is cancelled (it was active). Attempt 1 on ep1 is told to stop" in said
    assert client.renew(lease)[1].order == "cancel"
    assert "nothing changed" in lab.ok("cancel", "op/cancel")
    assert "wrong input" in lab.ok("history", "op/cancel")


def test_commit_needs_every_phase_and_leaves_a_refused_subjob_as_it_was(lab: Lab) -> None:
    client = lab.client("op/commit")
    lease = client.acquire(m.Acquire("n" * 16, evidence=Evidence(1, 1)))
    assert "holds the lease" in lab.refused(1, "settle", "op/commit", "--outcome", "failed")
    client.call(m.Enter(lease.fence, lease.nonce, "run"))
    client.call(m.Exited(lease.fence, lease.nonce, 1))
    refusal = lab.refused(1, "commit", "op/commit")
    assert "not complete: run" in refusal and "htlease settle" in refusal
    assert json.loads(lab.ok("show", "op/commit", "--json"))["status"] == "exited"

    lease = client.acquire(m.Acquire("o" * 16, evidence=Evidence(2, 2)))
    client.call(m.Enter(lease.fence, lease.nonce, "run"))
    client.call(m.Complete(lease.fence, lease.nonce, "run"))
    client.call(m.Exited(lease.fence, lease.nonce, 0))
    assert "op/commit is complete (it was exited" in lab.ok("commit", "op/commit")
    assert "nothing changed" in lab.ok("commit", "op/commit")
    assert "is complete already" in lab.refused(1, "settle", "op/commit", "--outcome", "failed")


def test_settle_closes_with_the_outcome_that_was_found(lab: Lab) -> None:
    client = lab.client("op/settle")
    lease = client.acquire(m.Acquire("n" * 16, evidence=Evidence(1, 1)))
    client.call(m.Abandon(lease.fence, lease.nonce, "evicted"))
    said = lab.ok("settle", "op/settle", "--outcome", "failed", "--reason", "input is lost")
    assert "op/settle is failed (it was abandoned; fence 2)" in said
    assert "settled on the access point: input is lost" in lab.ok("explain", "op/settle")


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (1, ("show", "gone/x"), "gone/x"),
        (1, ("history", "gone/x"), "gone/x"),
        (1, ("cancel", "gone/x"), "gone/x"),
        (1, ("commit", "gone/x"), "gone/x"),
        (1, ("list", "gone"), "gone"),
        (1, ("find", "gone"), "no subjob is known by 'gone'"),
        (78, ("show", "a/b/c"), "exactly one slash"),
        (78, ("show", "a b"), "contains ' '"),
        (78, ("graph", "nope"), "there are simple, staged, cts"),
        (78, ("list", "--admin-token-file", "/nonexistent"), "/nonexistent"),
        (78, ("list", "--server", "ftp://x"), "not http://HOST:PORT"),
        (75, ("list", "--server", "http://127.0.0.1:9"), "htlease serve"),
    ],
)
def test_errors_are_one_sentence_naming_the_thing(
    lab: Lab, code: int, arguments: tuple[str, ...], words: str
) -> None:
    assert words in lab.refused(code, *arguments)


@pytest.mark.parametrize("key", ["no-slash", "a/b/c", "a/b c", "a/\u00fc", "a/.."])
def test_a_key_that_is_none_is_a_usage_error_that_says_what_one_is(lab: Lab, key: str) -> None:
    done = lab.run("history", key)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "htlease: Invalid value" in done.stderr


def test_an_unknown_attempt_is_told_where_to_look(lab: Lab) -> None:
    lab.client("explain/a").call(m.Enroll())
    assert "No attempt has asked for the lease yet." in lab.ok("explain", "explain/a")
    refusal = lab.refused(1, "explain", "explain/a", "--attempt", "7")
    assert "explain/a has no attempt 7; `htlease show explain/a` lists" in refusal


def test_a_wrong_token_is_refused_with_the_way_out(lab: Lab, tmp_path: Path) -> None:
    wrong = tmp_path / "admin.token"
    wrong.write_text("not-the-token-at-all\n")
    assert "--admin-token-file" in lab.refused(78, "list", "--admin-token-file", wrong)
    wrong.write_text("\n")
    assert "is empty" in lab.refused(78, "list", more={"HTLEASE_ADMIN_TOKEN_FILE": str(wrong)})


@pytest.mark.parametrize(
    ("code", "page", "words"),
    [
        (78, b'{"hello": "world"}', "not as a lease server does"),
        # A page may come from a proxy that is only passing; what it says may pass as well.
        (75, b"<html>hello</html>", "answered 200 without a document"),
    ],
)
def test_another_kind_of_server_is_not_taken_for_ours(
    lab: Lab, code: int, page: bytes, words: str
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_address[1]}"
        for arguments in (("list",), ("show", "w/a"), ("history", "w/a"), ("find", "a")):
            assert words in lab.refused(code, *arguments, "--server", url)
        other.shutdown()
