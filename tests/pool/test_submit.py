"""`htlease submit` on a real pool: ordinary submit files, and nothing left half done.

The command runs on the access point as the job's user, with the bindings of that HTCondor.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import tenacity
from tests.pool.lab import COMMAND_ROOTS, Lab, write_for_job

Done = subprocess.CompletedProcess[str]

RUN = r"""#!/bin/sh
[ "$0" = "$_CONDOR_SCRATCH_DIR/${0##*/}" ] || echo "called as $0"
printf '<%s>' "${0##*/}" "$@"
echo " key=$HTLEASE_KEY phase=$HTLEASE_PHASE"
cat input.txt
"""

#: What every job here asks for, so that many fit on the pool.
SMALL = """
request_cpus = 1
request_memory = 64
request_disk = 1
output = out.$(Process)
error = err.$(Process)
log = log
"""


@dataclass
class Desk:
    """A directory on the access point and its user's `htlease submit`."""

    lab: Lab
    directory: Path

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        write_for_job(self.directory / name, text.encode(), mode)

    def htlease(
        self,
        *arguments: str,
        server_url: str | None = None,
        more_env: Mapping[str, str] | None = None,
    ) -> Done:
        return self.lab.pool.run(
            ["python3", "-m", "htlease_cli.cli", *arguments],
            cwd=self.directory,
            check=False,
            env={
                "PYTHONPATH": ":".join([*COMMAND_ROOTS, str(self.directory / "lib")]),
                "HOME": str(self.directory),
                "HTLEASE_URL": server_url or self.lab.server.url,
                "HTLEASE_ADMIN_TOKEN_FILE": str(self.directory / "admin.token"),
                **(more_env or {}),
            },
        )

    def submit(self, file: str, *arguments: str) -> list[dict[str, Any]]:
        done = self.htlease("submit", file, "--pyz", "htlease-ep.pyz", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        jobs: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
        return jobs

    def refused(self, code: int, *arguments: str, server_url: str | None = None) -> str:
        done = self.htlease("submit", *arguments, "--pyz", "htlease-ep.pyz", server_url=server_url)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr

    def subjob(self, key: str) -> dict[str, Any]:
        workflow, subjob = key.split("/")
        return self.lab.server.ask("GET", f"workflows/{workflow}/subjobs/{subjob}")

    def wait_ended(self, keys: list[str]) -> None:
        def have_ended() -> bool:
            return all(self.subjob(key)["status"] in ("exited", "complete") for key in keys)

        self.lab.wait_for(have_ended, f"{keys} to end", 120)
        self.lab.wait_for(lambda: not self.queue(), "the jobs to leave the queue", 60)

    def queue(self) -> str:
        """Return what this directory's jobs are doing, one line each."""
        done = self.lab.pool.run(
            ["condor_q", "-constraint", f'Iwd == "{self.directory}"', "-af", "ProcId", "JobStatus"]
        )
        return done.stdout.strip()

    def token_files(self) -> list[Path]:
        return sorted(self.directory.glob(".local/state/htlease/tokens/*/*/htlease.token"))


@pytest.fixture
def desk(lab: Lab, request: pytest.FixtureRequest) -> Desk:
    return desk_in(lab, re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60])


def desk_in(lab: Lab, name: str, directory: Path | None = None) -> Desk:
    desk = Desk(lab, directory or lab.pool.job_directory(name))
    write_for_job(desk.directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    desk.write("admin.token", lab.server.admin_token, 0o600)
    desk.write("run.sh", RUN, 0o755)
    desk.write("input.txt", "data\n")
    library = desk.directory / "lib"
    library.mkdir()
    for package in (click, tenacity):
        place = Path(str(package.__file__)).parent
        (library / place.name).symlink_to(place)
    return desk


def test_an_ordinary_file_runs_with_the_same_arguments_and_files(desk: Desk) -> None:
    arguments = "\"a 'b  c' $(Process) ''it'' say \"\"hi\"\" '' $(sample)\""
    desk.write(
        "a.sub",
        f"executable = run.sh\narguments = {arguments}\ntransfer_input_files = input.txt\n"
        f"{SMALL}queue 1 sample from (\n  s1\n  s 2\n)\n",
    )
    jobs = desk.submit("a.sub", "--workflow", desk.directory.name)
    keys = [job["subjob"] for job in jobs]
    assert keys == [f"{desk.directory.name}/0", f"{desk.directory.name}/1"]
    desk.wait_ended(keys)
    words = ["a", "b  c", "{}", "it", "say", '"hi"', ""]
    expected = "".join(f"<{word}>" for word in words)
    for process, sample in enumerate(["<s1>", "<s><2>"]):
        printed = (desk.directory / f"out.{process}").read_text()
        assert printed == (
            f"<run.sh>{expected.format(process)}{sample} key={keys[process]} phase=run\ndata\n"
        )
    for job in jobs:
        document = desk.subjob(job["subjob"])
        assert document["exit_code"] == 0
        assert [entry["global_job_id"] for entry in document["submissions"]] == [
            job["global_job_id"]
        ], "the enrolled epoch went to this job and to no other"
        assert len(document["attempts"]) == 1
        assert job["subjob"] in desk.htlease("find", job["global_job_id"]).stdout


def test_queue_n_gives_each_job_its_own_key_and_token(desk: Desk) -> None:
    desk.write("a.sub", f"executable = /bin/true\n{SMALL}queue 3\n")
    jobs = desk.submit("a.sub", "--workflow", "three")
    assert [job["subjob"] for job in jobs] == ["three/0", "three/1", "three/2"]
    tokens = desk.token_files()
    assert len({token.read_text() for token in tokens}) == 3
    assert {token.stat().st_mode & 0o777 for token in tokens} == {0o600}
    ads = desk.lab.pool.run(["condor_q", "-l", f"{jobs[0]['global_job_id'].split('#')[1]}"])
    history = desk.lab.pool.run(["condor_history", "-l", "-limit", "3"])
    for token in tokens:
        assert token.read_text().strip() not in ads.stdout + history.stdout
    desk.wait_ended([job["subjob"] for job in jobs])


def test_the_jobs_own_key_names_the_subjob(desk: Desk) -> None:
    desk.write(
        "a.sub",
        'executable = /bin/true\nMy.HTLeaseKey = "own/s-$(sample)-$(Step)"\n'
        f"{SMALL}queue 2 sample in (x y)\n",
    )
    jobs = desk.submit("a.sub")
    assert [job["subjob"] for job in jobs] == [
        "own/s-x-0", "own/s-x-1", "own/s-y-0", "own/s-y-1",
    ]  # fmt: skip
    desk.wait_ended([job["subjob"] for job in jobs])


def test_a_plan_runs_the_phases_and_an_override_replaces_a_command(desk: Desk) -> None:
    desk.write("plan.toml", '[[phase]]\nname = "only"\nrun = ["./run.sh", "planned"]\n')
    desk.write("a.sub", f"executable = run.sh\ntransfer_input_files = input.txt\n{SMALL}queue\n")
    jobs = desk.submit("a.sub", "--plan", "plan.toml", "--workflow", "planned", "--", "error = e2")
    desk.wait_ended(["planned/0"])
    assert "<run.sh><planned> key=planned/0 phase=only" in (desk.directory / "out.0").read_text()
    assert (desk.directory / "e2").exists()
    assert len(jobs) == 1


def test_plain_condor_submit_needs_two_changed_lines_only(desk: Desk) -> None:
    desk.write("plan.toml", '[[phase]]\nname = "only"\nrun = ["./run.sh", "plain"]\n')
    desk.write("htlease.token", desk.lab.token("plain"), 0o600)
    desk.write(
        "a.sub",
        "executable = htlease-ep.pyz\n"
        f"arguments = run --server {desk.lab.server.url} --plan plan.toml\n"
        "transfer_input_files = plan.toml, run.sh, input.txt, htlease.token\n"
        f'{SMALL}My.HTLeaseKey = "plain/$(sample)-$(Step)"\nqueue 2 sample from (\n  x\n  y\n)\n',
    )
    desk.lab.server.ask("PUT", "workflows/plain", {"request_id": "made by the test"})
    desk.lab.pool.run(["condor_submit", "a.sub"], cwd=desk.directory)
    keys = ["plain/x-0", "plain/x-1", "plain/y-0", "plain/y-1"]
    desk.lab.wait_for(
        lambda: len(desk.lab.server.ask("GET", "workflows/plain")["subjobs"]) == 4, "4 subjobs", 60
    )
    desk.wait_ended(keys)
    for process, key in enumerate(keys):
        assert f"<plain> key={key} phase=only" in (desk.directory / f"out.{process}").read_text()


def test_a_job_that_gets_no_lease_is_held_and_runs_once_it_is_released(desk: Desk) -> None:
    """Its plan says that no second run may overlap, so it cannot run untracked."""
    desk.write("plan.toml", '[[phase]]\nname = "only"\nrestart = "once"\n')
    desk.write("a.sub", f"executable = /bin/echo\n{SMALL}on_exit_remove = true\nqueue\n")
    desk.submit("a.sub", "--plan", "plan.toml", "--workflow", "late-server", "--wait-server", "1s",
                "--", "hold = true")  # fmt: skip
    desk.lab.server.stop()
    try:
        desk.lab.pool.run(["condor_release", "-constraint", f'Iwd == "{desk.directory}"'])
        held = ["condor_q", "-constraint", "HoldReasonSubCode == 75", "-af", "HoldReason"]
        reason = desk.lab.wait_for(lambda: desk.lab.pool.run(held).stdout, "a hold", 120)
    finally:
        desk.lab.server.start()
    assert "condor_release" in reason
    desk.lab.pool.run(["condor_release", "-constraint", f'Iwd == "{desk.directory}"'])
    desk.wait_ended(["late-server/0"])
    assert len(desk.subjob("late-server/0")["attempts"]) == 1


def test_a_program_that_cannot_be_run_is_named_where_the_job_is_held(desk: Desk) -> None:
    program = "executable = /no/such/program\ntransfer_executable = false\n"
    desk.write("a.sub", f"{program}{SMALL}queue\n")
    desk.submit("a.sub", "--workflow", "missing")
    desk.lab.wait_for(lambda: desk.queue() == "0 5", "the job to be held", 120)
    mine = ("-constraint", f'Iwd == "{desk.directory}"')
    reason = desk.lab.pool.run(["condor_q", *mine, "-af", "HoldReason"]).stdout
    assert reason.startswith("htlease: the program cannot be run: /no/such/program")
    desk.lab.pool.run(["condor_rm", *mine])


def test_a_job_whose_token_has_expired_in_the_queue_gets_a_new_one(desk: Desk) -> None:
    desk.write("a.sub", f"executable = run.sh\ntransfer_input_files = input.txt\n{SMALL}queue\n")
    desk.submit("a.sub", "--workflow", "renewed", "--token-ttl", "1s")
    desk.lab.wait_for(lambda: desk.queue() == "0 5", "the job to be held", 120)
    cluster = desk.lab.pool.run(["condor_q", "-af", "ClusterId", "HoldReason"]).stdout
    assert "htlease token renew" in cluster
    # Late materialization: its jobs share a token.
    factory = f"{SMALL}hold = true\nmax_materialize = 1\nqueue\n"
    desk.write("b.sub", f"executable = run.sh\ntransfer_input_files = input.txt\n{factory}")
    desk.submit("b.sub", "--workflow", "sharing")
    (token,) = desk.directory.glob(".local/state/htlease/tokens/*/htlease.token")
    claims = json.loads(base64.urlsafe_b64decode(token.read_text().split(".")[1] + "=="))
    assert re.fullmatch(r".+#\d+[.][*]", claims["job"]["id"])
    assert len(desk.token_files()) == 1  # the expired one is kept
    done = desk.htlease("token", "renew")
    assert done.returncode == 0, done.stderr
    jobs = desk.lab.pool.run(["condor_q", "-af:j", "HTLeaseKey"]).stdout.split()
    assert f"condor_release {jobs[0]}" in done.stdout
    desk.lab.pool.run(["condor_release", *jobs[::2]])
    desk.wait_ended(["renewed/0", "sharing/0"])
    assert "in the queue has a token file" in desk.htlease("token", "renew", "renewed").stderr


def test_jobs_of_a_command_are_made_once(desk: Desk) -> None:
    """What `queue from COMMAND |` runs has side effects; all jobs share a token then."""
    desk.write("items.sh", "#!/bin/sh\necho ran >> items.ran\nprintf 'x\\ny\\n'\n", 0o755)
    desk.write(
        "a.sub",
        f"executable = /bin/echo\ntransfer_executable = false\narguments = $(x)\n{SMALL}"
        "queue x from ./items.sh |\n",
    )
    jobs = desk.submit("a.sub", "--workflow", "piped")
    assert (desk.directory / "items.ran").read_text() == "ran\n"
    assert [job["subjob"] for job in jobs] == ["piped/0", "piped/1"]
    assert len(list(desk.directory.glob(".local/state/htlease/tokens/*/htlease.token"))) == 1
    desk.wait_ended(["piped/0", "piped/1"])
    assert [(desk.directory / f"out.{name}").read_text() for name in "01"] == ["x\n", "y\n"]


def test_two_jobs_that_turn_out_to_have_one_key_are_removed_again(desk: Desk) -> None:
    desk.write("items.sh", "#!/bin/sh\nprintf 'x\\nx\\n'\n", 0o755)
    desk.write(
        "a.sub",
        f'executable = run.sh\n+HTLeaseKey = "twice/$(x)"\nhold = true\n{SMALL}'
        "queue x from ./items.sh |\n",
    )
    said = desk.refused(78, "a.sub")
    assert "jobs 0 and 1 of this file are both twice/x" in said
    assert "the jobs were removed from the queue again" in said
    desk.lab.wait_for(lambda: not desk.queue(), "the jobs to leave the queue", 60)


def test_without_file_transfer_everything_is_found_where_it_lies(desk: Desk) -> None:
    desk.write("plan.toml", '[[phase]]\nname = "only"\n')
    desk.write(
        "a.sub",
        "universe = local\nexecutable = run.sh\nshould_transfer_files = $(S)\nS = NO\n"
        f"{SMALL}queue\n",
    )
    desk.submit("a.sub", "--plan", "plan.toml", "--workflow", "not-sent", "--ttl", "30s")
    desk.wait_ended(["not-sent/0"])
    assert "key=not-sent/0 phase=only\ndata" in (desk.directory / "out.0").read_text()


def test_a_job_on_shared_files_runs_where_it_would_without_us(lab: Lab) -> None:
    """No files are transferred to a machine of the same FileSystemDomain, unless that is asked."""
    desk = desk_in(lab, "shared", lab.shared_directory("submit-shared"))
    for folder in ("programs", "work"):
        (desk.directory / folder).mkdir()
        owner = desk.directory.stat()
        os.chown(desk.directory / folder, owner.st_uid, owner.st_gid)
    script = '#!/bin/sh\necho "$0 in $(pwd) $HTLEASE_PHASE"\n'
    desk.write("programs/where.sh", script, 0o755)
    desk.write("plan.toml", '[[phase]]\nname = "only"\n')
    desk.write(
        "a.sub",
        f"executable = programs/where.sh\ninitialdir = work\n{SMALL}"
        f'+FileSystemDomain = "{lab.pool.ep_host("ep1")}"\nqueue\n',
    )
    desk.submit("a.sub", "--plan", "plan.toml", "--workflow", "shared-files")
    desk.wait_ended(["shared-files/0"])
    printed = (desk.directory / "work" / "out.0").read_text()
    assert printed == f"{desk.directory}/programs/where.sh in {desk.directory}/work only\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("universe = java\narguments = Main", "java universe; use vanilla with"),
        ("universe = 11\nmachine_count = 2", "parallel universe; submit it by condor_submit"),
        ("copy_to_spool = $(Y)\nY = True", "copy_to_spool; leave it out"),
        ("universe = $(U)\nU = grid\ngrid_resource = batch slurm", "grid universe; give the job"),
        ('+Cmd = "run.sh"', "+Cmd; write it as `executable`"),
        ('+HTLeaseKey = "s-1"', "HTLeaseKey is not "),
        ("universe = container\ncontainer_image = docker://debian\nexecutable =", "no executable"),
    ],
)
def test_what_cannot_run_is_refused_by_name(desk: Desk, lines: str, said: str) -> None:
    desk.write("a.sub", f"executable = run.sh\n{lines}\n{SMALL}queue\n")
    assert f"a.sub: {said}" in desk.refused(1, "a.sub")
    assert desk.queue() == "" and desk.token_files() == []


def test_condor_q_shows_the_users_command(desk: Desk) -> None:
    desk.write("a.sub", f"executable = run.sh\narguments = one two\nhold = true\n{SMALL}queue\n")
    jobs = desk.submit("a.sub", "--workflow", "shown")
    cluster = jobs[0]["global_job_id"].split("#")[1].split(".")[0]
    shown = desk.lab.pool.run(["condor_q", "-nobatch", cluster]).stdout
    shown += desk.lab.pool.run(["condor_q", cluster]).stdout
    assert "run.sh one two" in shown and "htlease-ep" not in shown
    desk.lab.pool.run(["condor_rm", cluster])


def test_with_the_server_away_nothing_is_submitted(desk: Desk) -> None:
    desk.write("a.sub", f"executable = /bin/true\n{SMALL}queue 2\n")
    said = desk.refused(75, "a.sub", "--workflow", "away", server_url="http://127.0.0.1:9")
    assert "nothing was submitted" in said and "htlease serve" in said
    assert desk.queue() == "" and desk.token_files() == []


@pytest.mark.parametrize("line", ['My.Owner = "somebodyelse"', "request_memory = = 3"])
def test_a_refused_submission_cancels_what_was_enrolled(desk: Desk, line: str) -> None:
    """The first line is refused by the schedd, the second by the bindings."""
    workflow = f"refused-{line[0]}"
    desk.write("a.sub", f"executable = /bin/true\n{SMALL}{line}\nqueue 2\n")
    said = desk.refused(1, "a.sub", "--workflow", workflow)
    assert "2 subjob(s) that were enrolled are cancelled" in said
    assert desk.queue() == "" and desk.token_files() == []
    assert [desk.subjob(f"{workflow}/{process}")["status"] for process in range(2)] == [
        "cancelled"
    ] * 2

    desk.write("a.sub", f"executable = /bin/true\n{SMALL}queue 2\n")
    jobs = desk.submit("a.sub", "--workflow", workflow)
    desk.wait_ended([job["subjob"] for job in jobs])


def test_a_complete_subjob_is_run_again_only_when_forced(desk: Desk) -> None:
    desk.write("plan.toml", '[[phase]]\nname = "only"\nrun = ["true"]\nrestart = "once"\n')
    desk.write("a.sub", f"executable = /bin/true\n{SMALL}queue 2\n")
    with_plan = ("--plan", "plan.toml", "--workflow", "again")
    desk.submit("a.sub", *with_plan)
    desk.wait_ended(["again/0", "again/1"])
    said = desk.refused(1, "a.sub", *with_plan)
    assert "again/0 is complete; `htlease submit --force` runs it again" in said
    assert desk.queue() == ""
    assert desk.subjob("again/0")["status"] == "complete"
    desk.submit("a.sub", *with_plan, "--force")
    desk.wait_ended(["again/0", "again/1"])
    assert len(desk.subjob("again/1")["attempts"]) == 2


def test_with_the_schedd_away_nothing_is_enrolled(desk: Desk) -> None:
    desk.write("a.sub", f"executable = /bin/true\n{SMALL}queue\n")
    said = desk.refused(1, "a.sub", "--workflow", "nobody", "--schedd", "gone.example.org")
    assert "gone.example.org does not answer" in said
    done = desk.htlease("show", "nobody")
    assert done.returncode == 1


def test_the_jobs_of_a_dry_run_are_printed_and_nothing_else_is_done(desk: Desk) -> None:
    desk.write("a.sub", f"executable = run.sh\n{SMALL}queue 2\n")
    done = desk.htlease(
        "submit", "a.sub", "--pyz", "htlease-ep.pyz", "--dry-run", "--workflow", "d"
    )
    assert done.returncode == 0 and done.stderr == ""
    assert 'HTLeaseKey="d/0"' in done.stdout and 'HTLeaseKey="d/1"' in done.stdout
    assert desk.queue() == "" and not (desk.directory / ".local").exists()


def test_doctor_on_an_access_point_finds_the_schedd(desk: Desk) -> None:
    done = desk.htlease("doctor", "--pyz", "htlease-ep.pyz", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {name: check["verdict"] for name, check in checks.items()} == dict.fromkeys(
        (
            "server", "server address", "token", "clock", "wrapper", "schedd",
            "protected attributes", "job lease", "NumJobStarts",
        ),
        "ok",
    ), checks  # fmt: skip
