"""`USER_JOB_WRAPPER = .../htlease-ep.pyz` on a real pool: every job has the whole wrapper.

Containers have `test_containers.py`. Not tested: a real `condor_ssh_to_job` (there is no sshd in the
pool's roots).
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.pool.lab import PHASE_SCRIPT, PLAN, Lab, TestJob, Witness, write_for_job
from tests.serving import ServerProcess

from htlease_lab.pool import Pool

NAME = "sitewrap"
#: Says on standard output what it was started with; how it ends is its first argument.
SHOW = r"""#!/bin/sh
ending=$1; shift
printf '<%s>' "$@"; echo
grep '^Sig[PBI]' /proc/self/status
test -t 0 || read line && echo "in:$line"
echo "err $HTLEASE_PHASE" >&2
eval "$ending"
"""
WAITS = (
    'trap "echo term; exit 5" TERM; echo begun; while test $HTLEASE_FENCE = 1; do sleep 0.2; done'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pyz: Path) -> Iterator[Lab]:
    """A pool whose machines, the access point's local universe too, wrap every job."""
    pool = Pool(NAME)
    pool.down(purge=True)
    pool.up()
    server = ServerProcess(tmp_path_factory.mktemp("server"), pool.ap_address)
    server.start()
    witness = Witness(pool.ap_address)
    try:
        folder = pool.directory / "site"
        folder.mkdir()
        folder.chmod(0o755)
        shutil.copy(pyz, folder / "htlease-ep.pyz")
        wrapped = (
            f"USER_JOB_WRAPPER = {folder}/htlease-ep.pyz\n"
            f'STARTER_JOB_ENVIRONMENT = "HTLEASE_URL={server.url} HTLEASE_TTL=20"\n'
        )
        for host in ("ap", "ep1", "ep2"):
            pool.configure(host, "wrapper", wrapped)
        yield Lab(pool, server, witness, pyz)
    finally:
        witness.close()
        server.stop()
        pool.down(purge=True)


def _submit(
    site: Lab,
    name: str,
    lines: Sequence[str],
    *,
    has_token: bool = True,
    files: Sequence[str] = (),
) -> TestJob:
    """Submit a job that has nothing of ours but a key, as an access point stamps it."""
    site.submitted += 1
    workflow = f"{name}-{site.submitted}"
    directory = site.pool.job_directory(workflow)
    write_for_job(directory / "show.sh", SHOW.encode(), 0o755)
    write_for_job(directory / "plan.toml", PLAN.encode())
    write_for_job(directory / "phase.py", PHASE_SCRIPT.read_bytes(), 0o755)
    write_for_job(directory / "htlease-ep.pyz", site.pyz.read_bytes(), 0o755)
    behaviour = json.dumps({"witness": site.witness.url})
    write_for_job(directory / "behaviour.json", behaviour.encode())
    write_for_job(directory / "input", b"given\n")
    inputs = list(files)
    if has_token:
        write_for_job(directory / "htlease.token", site.token(workflow).encode(), 0o600)
        inputs.append("htlease.token")
    cluster = site.pool.submit(
        "\n".join(
            [
                *lines,
                f'My.HTLeaseKey = "{workflow}/{workflow}"',
                *([f"transfer_input_files = {', '.join(inputs)}"] if inputs else []),
                "output = out\nerror = err\nlog = log",
                "request_cpus = 1\nrequest_memory = 64\nrequest_disk = 1",
                "job_lease_duration = 40",
                "queue",
            ]
        )
        + "\n",
        cwd=directory,
    )
    return TestJob(site, f"{cluster}.0", f"{workflow}/{workflow}", directory)


SIGPIPE, SIGXFSZ = (1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))


def _show(ending: str, *arguments: str) -> list[str]:
    quoted = " ".join("'" + text.replace("'", "''") + "'" for text in (ending, *arguments))
    return ["executable = show.sh", 'arguments = "' + quoted.replace('"', '""') + '"']


def _ended(job: TestJob) -> tuple[object, object]:
    ad = job.wait_gone()
    # Of the two, one may still be that of an earlier start.
    if ad["ExitBySignal"]:
        return None, ad["ExitSignal"]
    return ad["ExitCode"], None


def _read(job: TestJob, name: str) -> str:
    return (job.directory / name).read_text()


def _versioned(site: Lab) -> tuple[int, ...]:
    text = site.pool.run(["condor_version"]).stdout
    found = re.search(r"\$CondorVersion: (\d+)\.(\d+)", text)
    assert found is not None, text
    return tuple(int(part) for part in found.groups())


#: What a job brings for its payload, and what would break an interpreter that starts in it.
ENVIRONMENTS = ("PATH=/opt/app/bin", "PYTHONHOME=/opt/conda", "LD_LIBRARY_PATH=./bad", "a.b=1 _=x")
HERE = """\
#!/bin/sh
cd / && . "${0%/*}/lib.sh"
"""
#: Ends with 41 where SIGPIPE is ignored, as HTCondor has it, and else with 181.
LIB = """\
status=$( { { /usr/bin/yes 2>/dev/null; echo $? >&3; } | /usr/bin/head -1 >/dev/null; } 3>&1 )
exit $((40 + status))
"""


def test_no_environment_keeps_a_job_from_its_lease_and_its_own_status(site: Lab) -> None:
    directory = site.pool.job_directory("environments")
    write_for_job(directory / "here.sh", HERE.encode(), 0o755)
    write_for_job(directory / "lib.sh", LIB.encode())
    write_for_job(directory / "htlease-ep.pyz", site.pyz.read_bytes(), 0o755)
    write_for_job(directory / "htlease.token", site.token("environments").encode(), 0o600)
    (directory / "bad").mkdir()
    write_for_job(directory / "bad" / "libz.so.1", b"no library")
    write_for_job(directory / "bad" / "libm.so.6", b"no library")
    common = [
        "should_transfer_files = YES\ntransfer_output_files =",
        "log = log\nrequest_cpus = 1\nrequest_memory = 64\nrequest_disk = 1",
    ]
    inputs = "transfer_input_files = lib.sh, bad, htlease.token"
    jobs = []
    for name, way in (
        ("site", f"executable = here.sh\n{inputs}"),
        ("line", f"executable = htlease-ep.pyz\narguments = run -- ./here.sh\n{inputs}, here.sh"),
    ):
        lines = [f'My.HTLeaseKey = "environments/{name}$(Process)"', *common, way]
        lines += ['environment = "$(given)"', "queue given from (", *ENVIRONMENTS, ")"]
        cluster = site.pool.submit("\n".join(lines) + "\n", cwd=directory)
        for number in range(len(ENVIRONMENTS)):
            key = f"environments/{name}{number}"
            jobs.append(TestJob(site, f"{cluster}.{number}", key, directory))
    for job in jobs:
        assert _ended(job) == (41, None)
        assert [one["exit_code"] for one in job.subjob()["attempts"]] == [41]


def test_an_ordinary_job_with_arguments_and_redirected_streams(site: Lab) -> None:
    words = ["a", "b  c", "it's", 'say "hi"', "", "*"]
    job = _submit(site, "ordinary", [*_show("exit 0", *words), "input = input"], files=["input"])
    assert job.wait_gone()["ExitCode"] == 0
    said, pending, blocked, ignored, given = _read(job, "out").splitlines()
    assert said == "".join(f"<{word}>" for word in words)
    assert (pending, blocked) == ("SigPnd:\t" + "0" * 16, "SigBlk:\t" + "0" * 16)
    # What the test run ignores, the pool's daemons do too. HTCondor starts jobs with SIGPIPE
    # ignored; what Python ignores by itself is not handed on.
    assert int(ignored.partition("\t")[2], 16) & (SIGPIPE | SIGXFSZ) == SIGPIPE
    assert given == "in:given"
    assert _read(job, "err") == "err run\n"
    document = job.subjob()
    assert (document["status"], document["exit_code"]) == ("exited", 0)
    assert len(document["attempts"]) == 1
    assert not list(job.directory.glob(".htlease*")), "nothing of ours is transferred back"


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("exit 1", (1, None)),
        ("exit 75", (75, None)),
        ("exit 255", (255, None)),
        ("kill -INT $$", (None, signal.SIGINT)),
        ("kill -KILL $$", (None, signal.SIGKILL)),
        ("ulimit -c 0; kill -SEGV $$", (None, signal.SIGSEGV)),
    ],
)
def test_htcondor_records_the_payloads_own_end(
    site: Lab, ending: str, expected: tuple[int | None, int | None]
) -> None:
    job = _submit(site, "ends", _show(ending))
    assert _ended(job) == expected
    document = job.subjob()
    assert (document["exit_code"], document["exit_signal"]) == expected


def test_a_shell_job(site: Lab) -> None:
    if _versioned(site) < (24, 0):
        pytest.skip("this HTCondor's condor_submit does not know `shell =`")
    job = _submit(site, "shell", ['shell = echo "$HTLEASE_PHASE  x" && exit 5'])
    assert _ended(job) == (5, None)
    assert _read(job, "out") == "run  x\n"
    assert job.subjob()["exit_code"] == 5


def test_a_job_that_opted_out_is_left_alone(site: Lab) -> None:
    job = _submit(site, "out", [*_show("exit 6"), "My.HTLease = false"])
    assert _ended(job) == (6, None)
    assert _read(job, "err") == "err \n"
    assert not job.is_known()


def test_an_interactive_job_is_left_alone(site: Lab) -> None:
    job = _submit(site, "interactive", [*_show("exit 7"), "My.InteractiveJob = true"])
    assert _ended(job) == (7, None)
    assert not job.is_known()


def test_without_a_token_the_job_runs_untracked(site: Lab) -> None:
    job = _submit(site, "no-token", _show("exit 8"), has_token=False)
    assert _ended(job) == (8, None)
    said = _read(job, "err").splitlines()
    assert len(said) == 2 and "the payload runs untracked" in said[0] and said[1] == "err "
    assert not job.is_known()


def test_a_token_that_only_chirp_can_read_is_used(site: Lab) -> None:
    token = site.token(f"chirped-{site.submitted + 1}")
    lines = ["My.WantIOProxy = true", f'My._condor_priv_HTLeaseToken = "{token}"']
    job = _submit(site, "chirped", [*_show("exit 3"), *lines], has_token=False)
    assert _ended(job) == (3, None)
    assert job.subjob()["exit_code"] == 3
    assert _read(job, "err") == "err run\n"


@pytest.mark.parametrize("how", ["vacate", "hold", "fast"])
def test_an_evicted_job_reclaims_under_the_next_fence(site: Lab, how: str) -> None:
    job = _submit(site, how, ["executable = /bin/sh", f"arguments = \"-c '{_doubled(WAITS)}'\""])
    job.wait_status("active")
    job.lab.wait_for(lambda: _phase_entered(job), "the payload to be entered", 60)
    if how == "hold":
        site.pool.hold(job.job)
        site.pool.wait_status(job.job, "held")
        # Held is not yet stopped.
        site.wait_for(lambda: not site.pool.starters(job.job), "the first start to be over", 60)
        site.pool.release(job.job)
    else:
        site.pool.vacate(job.job, fast=how == "fast")
    assert _ended(job) == (0, None), job.explain()
    grants = job.grants()
    assert [grant["fence"] for grant in grants] == [1, 2], job.explain()
    document = job.subjob()
    assert (document["attempt_number"], document["status"]) == (2, "exited")
    ended = [event["event"] for event in job.history() if event["event"] == "lease-abandoned"]
    assert ended == ([] if how == "fast" else ["lease-abandoned"])
    assert "continues after an earlier attempt" in _read(job, "err")


def _doubled(text: str) -> str:
    return text.replace("'", "''").replace('"', '""')


def _phase_entered(job: TestJob) -> list[dict[str, Any]]:
    return [event for event in job.history() if event["event"] == "phase-entered"]


def test_a_submit_file_wrapper_inside_the_sites_is_one_lease(site: Lab) -> None:
    job = site.submit("both", ttl_seconds=20)
    assert job.wait_status("complete")["attempt_number"] == 1
    assert job.wait_gone()["ExitCode"] == 0
    assert [grant["fence"] for grant in job.grants()] == [1]
    assert [event["phase"] for event in _phase_entered(job)] == PHASES


def test_a_script_that_calls_the_wrapper_is_one_lease_at_a_time(site: Lab) -> None:
    script = "./htlease-ep.pyz run --plan plan.toml && exit 4"
    job = _submit(
        site,
        "script",
        _show(script),
        files=["htlease-ep.pyz", "phase.py", "plan.toml", "behaviour.json"],
    )
    assert _ended(job) == (4, None), job.explain()
    assert [grant["fence"] for grant in job.grants()] == [1, 2]
    assert job.subjob()["attempt_number"] == 1
    assert _read(job, "err") == "err run\n"


PHASES = ["register", "stage-in", "compute", "stage-out"]


def test_one_plan_gives_one_phase_list_in_the_vanilla_and_the_local_universe(site: Lab) -> None:
    """The words are the same whatever runs the job (and wherever the wrapper comes from)."""
    seen = {}
    for universe in ("vanilla", "local"):
        job = _submit(
            site,
            universe,
            [f"universe = {universe}", *_show("exit 9"), 'My.HTLeasePlan = "plan.toml"'],
            files=["plan.toml", "phase.py", "behaviour.json"],
        )
        assert job.wait_gone()["ExitCode"] == 0, job.explain()
        document = job.subjob()
        seen[universe] = [
            (event["event"], event["phase"])
            for event in job.history()
            if event["event"] in ("phase-entered", "phase-completed")
        ]
        assert document["status"] == "complete"
        assert len(document["attempts"]) == 1
    assert seen["vanilla"] == seen["local"]
    assert [name for event, name in seen["local"] if event == "phase-entered"] == PHASES
