"""What refusals, policies and endings mean for a job."""

from __future__ import annotations

import pytest

from htlease.condor.job_ad import Ad, Literal, parse_ad
from htlease.errors import BadConfig, Refused
from htlease.execution.sandbox_state import SandboxState, StartId
from htlease_hooks.hook_reply import Answer, quoted
from htlease_hooks.options import Site, parse_site
from htlease_hooks.starter.acquire import answer_to, answer_without_server
from htlease_hooks.starter.job_exit import JobEnd, how_it_ended
from htlease_hooks.starter.process_tree import job_mark
from htlease_hooks.starter.update import Task, task_for

START = StartId("ap#1.0#2", 0, 1, "/scratch", "boot")
VANILLA = Ad("test", {"jobuniverse": 5})


def state(fence: int | None) -> SandboxState:
    return SandboxState(START, 1, "n" * 24, "w/s", 1, None, "http://s", fence, fence)


@pytest.mark.parametrize(
    ("code", "outcome", "expected"),
    [
        ("lease-still-live", None, 601),
        ("superseded-attempt", None, 174),
        ("stale-fence", None, 174),
        ("subjob-closed", "failed", 175),
        ("subjob-closed", "cancelled", 175),
        ("subjob-closed", "complete", 0),
        ("unauthorized", None, 172),
        ("forbidden", None, 172),
        ("invalid", None, 171),
    ],
)
def test_each_refusal_has_its_code(code: str, outcome: str | None, expected: int) -> None:
    given = answer_to(Refused(code, "why", outcome=outcome), "w/s", "a file", VANILLA, True)
    assert given.code == expected
    assert given.message.startswith("w/s: ")
    assert (given.exit_status == 0) == (expected == 0)


@pytest.mark.parametrize(
    ("universe", "output", "is_before_transfer", "code", "keeps_outputs"),
    [
        (5, None, True, 0, True),
        (5, "result", True, 0, True),
        (5, None, False, 0, False),
        (5, "result", False, 176, False),
        (12, None, False, 0, False),
        (13, None, True, 176, False),
    ],
)
def test_a_complete_subjob_ends_the_job_where_htcondor_can(
    universe: int, output: str | None, is_before_transfer: bool, code: int, keeps_outputs: bool
) -> None:
    attributes: dict[str, Literal] = {"jobuniverse": universe}
    if output:
        attributes["transferoutput"] = output
    refused = Refused("subjob-closed", "complete", outcome="complete")
    given = answer_to(refused, "w/s", None, Ad("test", attributes), is_before_transfer)
    assert given.code == code
    assert ("Out" in given.attributes) == keeps_outputs
    assert ("Cmd" in given.attributes) == (code == 0)


@pytest.mark.parametrize(
    ("policy", "why", "code"),
    [
        ("run", "away", 0),
        ("idle", "away", 602),
        ("idle", "the server answered 503: busy", 603),
        ("hold", "away", 173),
    ],
)
def test_the_policy_decides_without_a_server(policy: str, why: str, code: int) -> None:
    given = answer_without_server(Site(on_no_server=policy), "w/s", why)
    assert given.code == code
    assert why in given.message


@pytest.mark.parametrize(("code", "status"), [(0, 0), (171, 71), (400, 100), (601, 1), (600, 100)])
def test_the_exit_status_is_never_0_for_a_refusal(code: int, status: int) -> None:
    assert Answer(code).exit_status == status


def test_a_message_survives_the_ad_syntax_of_hooks() -> None:
    text = quoted('a "quoted"\nline with C:\\path\\')
    assert text == '"a \\"quoted\\" line with C:/path/"'


def test_empty_options_stand_for_defaults() -> None:
    assert parse_site(["--server=http://s", "--ttl=", "--chain-prepare="]) == Site("http://s")


@pytest.mark.parametrize("argument", ["--ttl=-1", "--ttl=nan", "--wait-server=inf", "--x=1", "y"])
def test_bad_options_are_named(argument: str) -> None:
    with pytest.raises(BadConfig, match=argument.partition("=")[0]):
        parse_site([argument])


@pytest.mark.parametrize(
    ("job_state", "has_process", "fence", "is_wrapped", "task"),
    [
        ("Running", True, 1, False, Task.RENEW),
        ("Suspended", True, 1, False, Task.RENEW),
        ("Running", True, None, False, Task.ACQUIRE),
        ("Running", True, 1, True, Task.NOTHING),
        ("Running", False, 1, False, Task.NOTHING),
        ("Running", False, None, False, Task.NOTHING),
        ("Exited", True, 1, False, Task.NOTHING),
        (None, False, 1, False, Task.RENEW),
        (None, False, None, False, Task.NOTHING),
    ],
)
def test_an_update_does_what_its_moment_allows(
    job_state: str | None, has_process: bool, fence: int | None, is_wrapped: bool, task: Task
) -> None:
    assert task_for(job_state, has_process, state(fence), is_wrapped) is task
    assert task_for(job_state, has_process, None, is_wrapped) is Task.NOTHING


EXITED = 'JobState = "Exited"\nExitBySignal = false'


@pytest.mark.parametrize(
    ("argument", "ad", "code", "end"),
    [
        ("exit", "ExitCode = 143", "0", JobEnd(0, None, False)),
        ("exit", "ExitCode = 143\nExitSignal = 9", None, JobEnd(None, 9, False)),
        ("evict", "ExitCode = 0", "143", JobEnd(143, None, True)),
        ("remove", "ExitSignal = 15", None, JobEnd(None, 15, True)),
        ("exit", f"{EXITED}\nExitCode = 0", None, JobEnd()),
        # In docker universe there is no such variable, ever.
        ("exit", f"{EXITED}\nExitCode = 0\nWantDocker = true", None, JobEnd(0)),
        ("exit", f"{EXITED}\nExitCode = 3\nWantContainer = true", None, JobEnd(3)),
        ("exit", 'JobState = "Exited"\nExitBySignal = true\nExitSignal = 9', None, JobEnd(None, 9)),
    ],
)
def test_an_old_exit_code_in_the_ad_is_not_believed(
    argument: str, ad: str, code: str | None, end: JobEnd
) -> None:
    environ = {} if code is None else {"_CONDOR_MAINJOB_EXIT_CODE": code}
    assert how_it_ended([argument], Ad("test", parse_ad(ad)), environ) == end


def test_the_jobs_mark_is_read_off_the_hooks_own() -> None:
    environ = {
        "_CONDOR_ANCESTOR_111": "157:1795243482:4215493767",
        "_CONDOR_ANCESTOR_157": "350:1795243544:727147853",
        "_CONDOR_ANCESTOR_350": "462:1795243548:3893897369",
    }
    assert job_mark(environ, 462, 410) == b"_CONDOR_ANCESTOR_350=410:"
    assert job_mark(environ, 463, 410) is None
