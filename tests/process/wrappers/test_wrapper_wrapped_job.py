"""The pyz as the executable of a job of `htlease submit`: its arguments are the payload's."""

from __future__ import annotations

import pytest
from tests.process.execution import NewSandbox, Sandbox
from tests.serving import ServerProcess

SHOW = '#!/bin/sh\nprintf "<%s>" "$0" "$@"\necho " $HTLEASE_KEY $HTLEASE_PHASE"\n'


@pytest.fixture
def wrapped(new_job: NewSandbox, server: ServerProcess) -> Sandbox:
    box = new_job(server)
    box.call = ()
    box.environ.pop("HTLEASE_KEY", None)
    box.environ.pop("HTLEASE_URL", None)
    box.job_ad |= {
        "Cmd": f"/home/user/{box.pyz.name}",
        "HTLeaseProgram": "my prog.sh",
        "HTLeaseProgramPath": "/home/user/my prog.sh",
        "HTLeaseURL": server.url,
        "HTLeaseKey": box.key,
    }
    box.write("my prog.sh", SHOW)  # an input file keeps its mode
    return box


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a b", "", "'", '"'),
        ("run", "--plan", "x"),
        ("--help",),
        ("version",),
        ("--",),
        ("hook", "x"),
    ],
)
def test_all_arguments_are_the_payloads(wrapped: Sandbox, arguments: tuple[str, ...]) -> None:
    assert wrapped.run(*arguments) == 0, wrapped.messages
    words = "".join(f"<{word}>" for word in (f"{wrapped.path}/my prog.sh", *arguments))
    assert wrapped.output.decode() == f"{words} {wrapped.key} run\n"
    assert wrapped.server.subjob(wrapped.key)["exit_code"] == 0
    assert wrapped.messages == ""


def test_what_the_payload_calls_is_no_second_job(wrapped: Sandbox) -> None:
    wrapped.write("my prog.sh", '#!/bin/sh\n"$HTLEASE" version\n"$HTLEASE" phase\necho $?\n')
    assert wrapped.run("x") == 0
    assert wrapped.output.decode().startswith("htlease-ep ")
    assert wrapped.output.decode().endswith("\n78\n")
    assert len(wrapped.server.subjob(wrapped.key)["attempts"]) == 1


def test_a_parents_variables_count_for_nothing(wrapped: Sandbox) -> None:
    wrapped.environ |= {
        "HTLEASE_KEY": "parent/1",
        "HTLEASE_URL": "http://127.0.0.1:9",
        "HTLEASE_ATTEMPT": "ap1.test#7.0#1795225431@1.1",
    }
    assert wrapped.run() == 0
    assert wrapped.server.subjob(wrapped.key)["exit_code"] == 0


def test_a_program_that_stays_where_it_is_runs_there(wrapped: Sandbox) -> None:
    wrapped.job_ad |= {"HTLeaseProgram": "/bin/echo", "HTLeaseProgramPath": "/bin/echo"}
    assert wrapped.run("one", "two") == 0
    assert wrapped.output.decode() == "one two\n"


def test_without_file_transfer_all_is_found_where_it_lies(
    wrapped: Sandbox, new_job: NewSandbox, server: ServerProcess
) -> None:
    home = new_job(server).path
    program, plan = home / "prog", home / "plan.toml"
    program.write_text(SHOW)
    program.chmod(0o755)
    plan.write_text('ttl_seconds = 30\n[[phase]]\nname = "only"\n')
    (wrapped.path / "htlease.token").rename(home / "htlease.token")
    wrapped.job_ad |= {
        "HTLeaseProgram": "prog",
        "HTLeaseProgramPath": str(program),
        "HTLeasePlan": "plan.toml",
        "HTLeasePlanPath": str(plan),
        "HTLeaseTokenFile": str(home / "htlease.token"),
    }
    assert wrapped.run() == 0, wrapped.messages
    assert wrapped.output.decode() == f"<{program}> {wrapped.key} only\n"


def test_a_program_that_is_not_there_is_named(wrapped: Sandbox) -> None:
    (wrapped.path / "my prog.sh").unlink()
    assert wrapped.run() == 127
    assert "my prog.sh" in wrapped.messages
