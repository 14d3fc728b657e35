"""The configuration files of `hooks/condor` in real daemons, as a site would put them there."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.pool.lab import PROJECT

from htlease.rules.attempt import SubjobKey
from htlease_lab.pool import Pool
from htlease_lab.pool.network import EXECUTION_POINTS

CONDOR = PROJECT / "hooks" / "condor"
ACCESS_POINT = (CONDOR / "access-point.conf").read_text()
EXECUTION_POINT = (CONDOR / "execution-point.conf").read_text()

#: Notes that it was called, by whom and with what.
_RECORDER = """\
#!/bin/sh
job=$(sed -n 's/^ClusterId = //p')
[ -n "$job" ] && echo "$(basename "$0") $*" >> {calls}/$job
exit 0
"""
_DAEMON = """\
#!/bin/sh
echo "$$ $(id -un) $*" >> {notes}
trap : HUP
trap 'exit 0' TERM
while :; do sleep 0.1; done
"""
_JOB = """\
executable = /bin/true
request_memory = 1
request_disk = 1
"""
_HELD = "executable = /bin/true\nhold = true\n"


class Site:
    """A pool whose hooks only note that they were called."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.directory = pool.directory / "recording-site"
        self.calls = self.directory / "calls"
        for directory in (self.directory, self.calls):
            directory.mkdir(mode=0o755)
        self.calls.chmod(0o1777)
        for name in (
            "prepare_job_before_transfer",
            "prepare_job",
            "update_job_info",
            "job_exit",
            "shadow_prepare_job",
            "sites-own",
        ):
            self.program(name, _RECORDER.format(calls=self.calls))

    def program(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def configure_eps(self, more: str = "", after: str = "") -> None:
        text = f"HTLEASE_HOOK_DIR = {self.directory}\n{more}\n{EXECUTION_POINT}\n{after}\n"
        for ep in EXECUTION_POINTS:
            self.pool.configure(ep, "60-htlease-ep", text)

    def configure_ap(self, more: str = "", file: str = ACCESS_POINT) -> None:
        text = f"HTLEASE_HOOK_DIR = {self.directory}\n{more}\n{file}\n"
        self.pool.configure("ap", "60-htlease-ap", text)

    def submit(self, description: str, *options: str) -> int:
        done = self.pool.run(["condor_submit", "-terse", *options, "-"], input=description)
        return int(done.stdout.split(".")[0])

    def called(self, *lines: str) -> list[str]:
        """Run a job to its end and return which hooks were called for it, without arguments."""
        cluster = self.submit(_JOB + "".join(f"{line}\n" for line in lines) + "queue\n")
        self.pool.wait_status(f"{cluster}.0", "completed", 60)
        notes = self.calls / str(cluster)
        text = notes.read_text() if notes.exists() else ""
        return [line.split()[0] for line in text.splitlines()]

    def wait_for_jobs(self, cluster: int, count: int) -> None:
        """Wait until so many jobs of a cluster are in the queue."""
        self.pool.wait_for(lambda: len(self.ads(cluster, "ProcId")) == count, "all jobs", 30)

    def ads(self, cluster: int, *names: str) -> list[list[str]]:
        """Return attributes of a cluster's jobs in the queue, as text."""
        done = self.pool.run(["condor_q", str(cluster), "-af:t", *names])
        return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def site(pool: Pool) -> Iterator[Site]:
    site = Site(pool)
    yield site
    pool.run(["condor_rm", "-all"], check=False)
    pool.configure("ap", "60-htlease-ap", None)
    for ep in EXECUTION_POINTS:
        pool.configure(ep, "60-htlease-ep", None)


def test_every_kind_of_job_gets_a_key_that_the_server_takes(site: Site) -> None:
    site.configure_ap()
    late = _JOB + "requirements = false\nmax_idle = 3\nqueue 3\n"
    for description, options in (
        (_HELD + "queue 3\n", ()),
        (late, ()),
        ("universe = local\n" + _HELD + "queue 3\n", ()),
        ("universe = grid\ngrid_resource = batch slurm\n" + _HELD + "queue 3\n", ()),
        (_JOB + "requirements = false\nshould_transfer_files = YES\nqueue 3\n", ("-spool",)),
    ):
        cluster = site.submit(description, *options)
        site.wait_for_jobs(cluster, 3)
        keys = [row[0] for row in site.ads(cluster, "HTLeaseKey")]
        parsed = [SubjobKey.parse(key) for key in keys]
        assert {key.subjob for key in parsed} == {"0", "1", "2"}, description
        (workflow,) = {key.workflow for key in parsed}
        assert workflow.startswith(f"{site.pool.schedd_name}-{cluster}-")
        assert {tuple(row) for row in site.ads(cluster, "WantIOProxy", "HookKeyword")} == {
            ("true", "HTLEASE")
        }


def test_what_the_user_chose_is_kept(site: Site) -> None:
    site.configure_ap()
    chosen = '+HTLeaseKey = "mine/$(ProcId)"\n+WantIOProxy = false\n+HookKeyword = "SITE"\n'
    cluster = site.submit(_HELD + chosen + "queue 2\n")
    assert site.ads(cluster, "HTLeaseKey", "WantIOProxy", "HookKeyword") == [
        ["mine/0", "false", "SITE"],
        ["mine/1", "false", "SITE"],
    ]


def test_a_dag_managers_own_job_is_left_alone(site: Site) -> None:
    site.configure_ap()
    cluster = site.submit("universe = scheduler\n" + _HELD + "queue\n")
    assert site.ads(cluster, "HTLeaseKey", "WantIOProxy", "HookKeyword") == [["undefined"] * 3]


def test_names_that_no_key_may_have_are_mended(site: Site) -> None:
    transform = next(part for part in ACCESS_POINT.split("@end") if "EVALSET" in part)
    expression = transform.partition("?:")[2].partition("DEFAULT")[0].replace("\\\n", " ")
    ad = 'GlobalJobId = "odd na!me/x#2@h#12.3#456"; ClusterId = 12; QDate = 400; ProcId = 3'
    done = site.pool.run(["classad_eval", ad, " ".join(expression.split())])
    assert str(SubjobKey.parse(json.loads(done.stdout.splitlines()[-1]))) == (
        "odd-na-me-x#2@h-12-400/3"
    )


def test_a_sites_own_transforms_and_protection_stay(site: Site) -> None:
    site.configure_ap(
        "JOB_TRANSFORM_NAMES = Own\nJOB_TRANSFORM_Own @=end\n  SET WasHere true\n@end\n"
        "PROTECTED_JOB_ATTRS = Precious\n"
    )
    cluster = site.submit(_HELD + "queue\n")
    assert site.ads(cluster, "WasHere", "HTLeaseKey =!= undefined") == [["true", "true"]]
    done = site.pool.run(["condor_config_val", "PROTECTED_JOB_ATTRS"])
    assert done.stdout.split() == ["Precious", "NumShadowStarts"]


def test_the_keyword_is_not_stamped_where_a_router_works(site: Site) -> None:
    site.configure_ap("HTLEASE_STAMP_HOOK_KEYWORD = False")
    cluster = site.submit(_HELD + "queue\n")
    assert site.ads(cluster, "HookKeyword", "HTLeaseKey =!= undefined") == [["undefined", "true"]]


def test_the_example_of_a_requirement_refuses_a_bad_key_at_submission(site: Site) -> None:
    lines = ACCESS_POINT.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("#SUBMIT_REQUIREMENT_NAMES"))
    for number in range(first, first + 4):
        lines[number] = lines[number].removeprefix("#")
    site.configure_ap(file="\n".join(lines))
    for key in ("", "no-slash", "two words/x", "a/b/c"):
        submit = ["condor_submit", "-terse", "-"]
        text = f'{_HELD}+HTLeaseKey = "{key}"\nqueue\n'
        done = site.pool.run(submit, input=text, check=False)
        assert done.returncode != 0 and "must be WORKFLOW/SUBJOB" in done.stderr, key
    for lines_of_job in ("", '+HTLeaseKey = "run7/sample-0042"\n', "max_idle = 1\n"):
        site.submit(
            _HELD.replace("hold = true\n", "requirements = false\n") + lines_of_job + "queue\n"
        )


def test_an_ordinary_job_is_seen_by_all_hooks_in_order(site: Site) -> None:
    site.configure_ap("HTLEASE_AGENT = /bin/true")
    site.configure_eps()
    called = site.called()
    assert [name for name in called if "prepare" in name] == [
        "shadow_prepare_job",
        "prepare_job_before_transfer",
        "prepare_job",
    ]
    done = site.pool.run(["condor_config_val", "CONDOR_VERSION"])
    is_old = tuple(map(int, done.stdout.split("."))) < (25, 4)
    assert ("job_exit" in called) == is_old


def test_hooks_of_the_site_that_are_not_chained_stay_in_force(site: Site) -> None:
    own = (
        f"SITE_HOOK_PREPARE_JOB = {site.directory}/sites-own\n"
        "STARTER_DEFAULT_JOB_HOOK_KEYWORD = SITE\n"
    )
    site.configure_ap("HTLEASE_STAMP_HOOK_KEYWORD = False")
    site.configure_eps(own)
    assert site.called() == ["sites-own"]
    site.configure_eps(own + "HTLEASE_CHAIN = SITE\n")
    assert "prepare_job" in site.called()


@pytest.mark.parametrize("keyword", ["SITE", "BOGUS"])
def test_a_job_that_names_another_keyword_gets_the_shadows_hook_but_not_the_starters(
    site: Site, keyword: str
) -> None:
    """HTCondor's default keyword is for jobs that name none; one that exists nowhere counts too."""
    site.configure_ap("HTLEASE_AGENT = /bin/true")
    site.configure_eps(f"SITE_HOOK_PREPARE_JOB = {site.directory}/sites-own")
    theirs = ["sites-own"] if keyword == "SITE" else []
    line = f'+HookKeyword = "{keyword}"'
    assert site.called(line) == ["shadow_prepare_job", *theirs]
    site.configure_eps(after="STARTER_JOB_HOOK_KEYWORD = HTLEASE")
    assert "prepare_job" in site.called(line)


def test_the_agent_runs_as_condor_and_is_started_again(site: Site, tmp_path: Path) -> None:
    notes = site.directory / "agent-notes"
    notes.touch()
    notes.chmod(0o666)
    program = site.program("agent-stand-in", _DAEMON.format(notes=notes))
    site.configure_ap(f"HTLEASE_AGENT = {program}\nHTLEASE_URL = https://lease.example.org")

    def starts() -> list[str]:
        return notes.read_text().splitlines()

    def agents() -> list[int]:
        return [p.pid for p in site.pool.processes() if str(program) in p.argv]

    site.pool.wait_for(lambda: len(starts()) == 1, "the agent to start", 30)
    _, user, arguments = starts()[0].split(" ", 2)
    assert user == ("condor" if os.geteuid() == 0 else Path.home().owner())
    assert arguments.startswith("agent --socket=/")
    assert "--server=https://lease.example.org " in arguments
    os.kill(agents()[0], signal.SIGKILL)
    site.pool.wait_for(lambda: len(starts()) == 2, "the agent to be started again", 30)
    site.configure_ap()
    site.pool.wait_for(lambda: not agents(), "the agent to end", 30)


def test_condor_q_shows_attempt_phase_and_lease(site: Site) -> None:
    site.configure_ap()
    told = (
        '+ChirpHTLeaseAttempt = 3\n+ChirpHTLeasePhase = "stage-out"\n+ChirpHTLeaseState = "live"\n'
    )
    cluster = site.submit(_HELD + '+HTLeaseKey = "run7/sample-0042"\n' + told + "queue\n")
    plain = site.submit(_HELD + "queue\n")
    text = (CONDOR / "htlease.cpf").read_text()
    format_file = site.pool.work_dir / "htlease.cpf"
    format_file.write_text(text)
    done = site.pool.run(["condor_q", str(cluster), str(plain), "-pr", str(format_file)])
    rows = [line.split() for line in done.stdout.splitlines()]
    header = ["ID", "OWNER", "ST", "KEY", "ATTEMPT", "PHASE", "LEASE"]
    assert header in rows, done.stdout
    assert [*rows[rows.index(header) + 1][2:]] == [
        "H",
        "run7/sample-0042",
        "3",
        "stage-out",
        "live",
    ]
    assert rows[rows.index(header) + 2][4:] == ["-", "-", "-"]


def test_the_command_installs_what_the_daemons_then_use(
    site: Site, pyz: Path, wait_for_schedd: Callable[[str, str | None], None]
) -> None:
    site.pool.configure("ap", "60-htlease-ap", None)
    done = hooks(site, "install", "--role", "ap", "--url", "https://l.example.org", "--reconfig")
    assert "told to read" in done
    wait_for_schedd("HTLEASE_URL", "https://l.example.org")
    cluster = site.submit(_HELD + "queue\n")
    assert site.ads(cluster, "HTLeaseKey =!= undefined") == [["true"]]
    assert "as installed" in hooks(site, "status")
    hooks(site, "uninstall", "--role", "ap", "--reconfig")
    wait_for_schedd("HTLEASE_URL", None)
    assert not (site.pool.directory / "installed").exists()


def hooks(site: Site, verb: str, *options: str) -> str:
    """Run `htlease hooks` on the access point as root, with its own HTCondor and Python."""
    places = [place for place in sys.path if Path(place).is_relative_to(PROJECT)]
    more = (
        ["--hook-dir", str(site.pool.directory / "installed"), "--pyz", str(_pyz(site))]
        if verb == "install"
        else ["--pyz", str(_pyz(site))]
        if verb == "status"
        else []
    )
    path = ":".join(places)
    command = ["python3", "-B", "-m", "htlease_cli.cli", "hooks", verb, *options, *more]
    return site.pool.run(["env", f"PYTHONPATH={path}", *command], as_root=True).stdout


def _pyz(site: Site) -> Path:
    return site.directory / "to-install.pyz"


@pytest.fixture
def wait_for_schedd(site: Site, pyz: Path) -> Callable[[str, str | None], None]:
    """Wait until the running schedd has a macro with that value."""
    _pyz(site).write_bytes(pyz.read_bytes())
    ask = ["condor_config_val", "-schedd", "-name", site.pool.schedd_name]

    def wait(macro: str, value: str | None) -> None:
        def has() -> bool:
            done = site.pool.run([*ask, macro], check=False)
            answer = done.stdout.strip() if done.returncode == 0 else None
            return answer == value or (value is None and "Not defined" in (answer or ""))

        site.pool.wait_for(has, f"{macro} to be {value} in the schedd", 30)

    return wait
