"""`htlease hooks` against HTCondor's own reader of its configuration, of both versions."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from htlease_lab.pool.instance import base_directory
from htlease_lab.pool.software import SUITES, provide

Done = subprocess.CompletedProcess[str]

#: Runs a program of an unpacked Debian with that Debian's own loader and libraries.
_RUNNER = """\
#!/bin/sh
exec {root}/lib64/ld-linux-x86-64.so.2 \
--library-path {root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib {root}/usr/bin/condor_config_val "$@"
"""
_MAIN = """\
LIBEXEC = {libexec}
LOCAL_CONFIG_DIR = {local}
"""
_URL = "https://lease.example.org"


@dataclass(frozen=True)
class Machine:
    """A directory with a configuration of HTCondor, and the command acting on it."""

    directory: Path
    version: tuple[int, ...]
    environment: dict[str, str]
    pyz: Path

    @property
    def local(self) -> Path:
        return self.directory / "config.d"

    @property
    def hooks(self) -> Path:
        return self.directory / "libexec" / "htlease"

    def config_file(self, role: str) -> Path:
        return self.local / f"60-htlease-{role}.conf"

    def write(self, name: str, text: str) -> None:
        (self.local / name).write_text(text)

    def run(self, *arguments: str | Path) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "htlease_cli.cli", "hooks", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def install(self, role: str, *more: str | Path) -> Done:
        return self.run("install", "--role", role, "--pyz", self.pyz, *more)

    def ok(self, done: Done) -> str:
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, done: Done) -> str:
        """Return the sentence of a command that must fail."""
        assert done.returncode == 78, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    def value(self, macro: str) -> str | None:
        """Return a macro as HTCondor has it."""
        done = subprocess.run(
            ["condor_config_val", macro], env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else None

    def snapshot(self) -> dict[str, tuple[int, bytes | str | None]]:
        """Return everything that is in the directory, with permissions and contents."""
        found: dict[str, tuple[int, bytes | str | None]] = {}
        for path in sorted(self.directory.rglob("*")):
            mode = path.lstat().st_mode
            content: bytes | str | None = None
            if path.is_symlink():
                content = os.readlink(path)  # noqa: PTH115  # as text, for comparison
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(self.directory))] = (mode, content)
        return found


@pytest.fixture(scope="module", params=SUITES)
def tools(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with condor_config_val of one HTCondor version."""
    software = provide(request.param, base_directory() / "roots", print)
    directory = tmp_path_factory.mktemp(str(request.param))
    program = directory / "condor_config_val"
    program.write_text(_RUNNER.format(root=software.root))
    program.chmod(0o755)
    return directory


@pytest.fixture
def machine(tools: Path, pyz: Path, tmp_path: Path) -> Iterator[Machine]:
    directory = tmp_path / "machine"
    (directory / "config.d").mkdir(parents=True)
    (directory / "libexec").mkdir()
    main = directory / "condor_config"
    main.write_text(_MAIN.format(libexec=directory / "libexec", local=directory / "config.d"))
    environment = {
        **{name: value for name, value in os.environ.items() if "HTLEASE" not in name},
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(sys.path),
        "CONDOR_CONFIG": str(main),
    }
    made = Machine(directory, (), environment, pyz)
    version = tuple(map(int, (made.value("CONDOR_VERSION") or "0").split(".")))
    yield Machine(directory, version, environment, pyz)


@pytest.mark.parametrize("role", ["ep", "ap", "router"])
def test_uninstalling_leaves_every_byte_as_it_was_before(machine: Machine, role: str) -> None:
    machine.write("99-site.conf", "FOO = bar\n")
    before = machine.snapshot()
    machine.ok(machine.install(role, "--url", _URL))
    assert machine.snapshot() != before
    assert machine.value("HTLEASE_URL") == _URL
    machine.ok(machine.run("uninstall", "--role", role))
    assert machine.snapshot() == before


@pytest.mark.parametrize("macro", ["HTLEASE_URL", "HTLEASE_JOB_URL"])
def test_a_url_that_no_job_would_give_its_token_is_refused(machine: Machine, macro: str) -> None:
    before = machine.snapshot()
    said = machine.refused(machine.install("ap", "--set", f"{macro}=http://lease.example.org"))
    assert "http+insecure://lease.example.org" in said
    assert machine.snapshot() == before
    machine.ok(machine.install("ap", "--set", f"{macro}=http+insecure://lease.example.org"))


def test_a_dry_run_shows_the_file_as_a_diff_and_writes_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    shown = machine.ok(machine.install("ep", "--url", _URL, "--dry-run"))
    assert f"+HTLEASE_URL = {_URL}\n" in shown
    assert str(machine.config_file("ep")) in shown and str(machine.hooks) in shown
    assert machine.snapshot() == before
    machine.ok(machine.install("ep", "--url", _URL))
    again = machine.ok(machine.install("ep", "--url", "https://other.example.org", "--dry-run"))
    assert f"-HTLEASE_URL = {_URL}\n" in again


def test_each_hook_that_htcondor_is_told_of_is_a_link_it_may_run(machine: Machine) -> None:
    machine.ok(machine.install("ep", "--url", _URL))
    for hook in ("PREPARE_JOB_BEFORE_TRANSFER", "PREPARE_JOB", "UPDATE_JOB_INFO"):
        path = Path(machine.value(f"HTLEASE_HOOK_{hook}") or "")
        assert path == machine.hooks / hook.lower()
        mode = path.stat().st_mode
        assert mode & stat.S_IXUSR and not mode & stat.S_IWOTH
        assert path.read_bytes() == machine.pyz.read_bytes()
    assert machine.value("STARTER_DEFAULT_JOB_HOOK_KEYWORD") == "HTLEASE"
    assert f"--server={_URL} " in (machine.value("HTLEASE_HOOK_PREPARE_JOB_ARGS") or "")


def test_the_exit_hook_is_left_out_where_it_makes_jobs_run_for_ever(machine: Machine) -> None:
    machine.ok(machine.install("ep", "--url", _URL))
    told = machine.value("HTLEASE_HOOK_JOB_EXIT")
    assert (told is None) == (machine.version >= (25, 4))
    status = machine.ok(machine.run("status", "--pyz", machine.pyz))
    assert ("left out" in status) == (told is None)


@pytest.mark.parametrize("knob", ["STARTER_JOB_HOOK_KEYWORD", "STARTER_DEFAULT_JOB_HOOK_KEYWORD"])
def test_hooks_of_the_site_are_found_and_chained(machine: Machine, knob: str) -> None:
    machine.write(
        "10-site.conf",
        f"{knob} = SITE\nSITE_HOOK_PREPARE_JOB = /site/prepare\n"
        'SITE_HOOK_PREPARE_JOB_ARGS = one "two three"\n',
    )
    machine.ok(machine.install("ep", "--url", _URL))
    assert machine.value(knob) == "HTLEASE"
    arguments = machine.value("HTLEASE_HOOK_PREPARE_JOB_ARGS") or ""
    assert "--chain-prepare=/site/prepare " in arguments
    assert "'--chain-args=one \"two three\"'" in arguments
    machine.ok(machine.install("ep"))  # an upgrade sees its own keyword, and keeps the site's
    assert machine.value("HTLEASE_CHAIN") == "SITE"
    assert machine.value("HTLEASE_URL") == _URL
    machine.ok(machine.run("uninstall", "--role", "ep"))
    assert machine.value(knob) == "SITE"


def test_a_file_copied_by_hand_does_not_put_the_sites_hooks_out(machine: Machine) -> None:
    machine.write("10-site.conf", "STARTER_DEFAULT_JOB_HOOK_KEYWORD = SITE\n")
    template = Path(__file__).parents[3] / "hooks" / "condor" / "execution-point.conf"
    machine.write("60-htlease-ep.conf", template.read_text())
    assert machine.value("STARTER_DEFAULT_JOB_HOOK_KEYWORD") == "SITE"
    done = machine.run("status", "--pyz", machine.pyz)
    assert done.returncode == 1
    assert "our hooks are not called" in done.stdout and "--chain SITE" in done.stdout


def test_a_file_that_was_changed_by_hand_is_kept_without_force(machine: Machine) -> None:
    machine.ok(machine.install("ep", "--url", _URL))
    file = machine.config_file("ep")
    file.write_text(file.read_text() + "STARTER_UPDATE_INTERVAL = 45\n")
    before = machine.snapshot()
    assert "--force" in machine.refused(machine.install("ep"))
    assert "--force" in machine.refused(machine.run("uninstall", "--role", "ep"))
    assert machine.snapshot() == before
    assert "changed by hand" in machine.ok(machine.run("status", "--pyz", machine.pyz))
    machine.ok(machine.install("ep", "--force"))
    assert machine.value("STARTER_UPDATE_INTERVAL") == "60"
    assert machine.value("HTLEASE_URL") == _URL


def test_a_file_of_the_site_in_our_place_comes_back_byte_by_byte(machine: Machine) -> None:
    machine.write("60-htlease-ap.conf", "FOO = theirs\n")
    before = machine.snapshot()
    assert "was not written by" in machine.refused(machine.install("ap"))
    machine.ok(machine.install("ap", "--force", "--url", _URL))
    assert machine.value("FOO") is None
    machine.ok(machine.install("ap"))
    machine.ok(machine.run("uninstall", "--role", "ap"))
    assert machine.snapshot() == before


@pytest.mark.parametrize(
    ("role", "setting", "said"),
    [
        ("ep", "HTLEASE_TLL=600", "did you mean HTLEASE_TTL?"),
        ("ep", "HTLEASE_AGENT=/usr/bin/htlease", "nothing here reads HTLEASE_AGENT"),
        ("ep", "HTLEASE_TTL=5m", "HTLEASE_TTL = 5m: is not a number of seconds"),
        ("ep", "HTLEASE_TTL=0", "HTLEASE_TTL = 0: 0 is outside 1 to"),
        ("ep", "HTLEASE_UPDATE_INTERVAL=-60", "is not a number of seconds"),
        ("ep", "HTLEASE_WAIT_LEASE=nan", "is not a number of seconds"),
        ("ep", "HTLEASE_ON_NO_SERVER=Idle", "is not one of run, idle, hold"),
        ("ep", "HTLEASE_WRAP_JOBS=ture", "is neither True nor False"),
        ("ep", "HTLEASE_CHAIN=two words", "is not one word"),
        ("ap", "HTLEASE_AGENT=htlease", "is not an absolute path"),
        ("ap", "HTLEASE_AGENT_LISTEN=8621", "is not ADDRESS:PORT"),
        ("ap", "HTLEASE_JOB_URL=lease.example.org", "is not"),
        ("ap", "HTLEASE_WRAP_JOBS=True", "nothing here reads HTLEASE_WRAP_JOBS"),
        ("router", "HTLEASE_TTL=600", "nothing here reads HTLEASE_TTL"),
    ],
)
def test_a_setting_that_nothing_would_take_is_refused(
    machine: Machine, role: str, setting: str, said: str
) -> None:
    before = machine.snapshot()
    assert said in machine.refused(machine.install(role, "--set", setting))
    assert machine.snapshot() == before


def test_what_a_macro_comes_to_in_the_end_is_judged_by_status(machine: Machine) -> None:
    machine.write("50-site.conf", "SITE_TTL = 10m\nHTLEASE_TLL = 600\nHTLEASE_SITE = x\n")
    machine.ok(machine.install("ep", "--url", _URL, "--set", "HTLEASE_TTL=$(SITE_TTL)"))
    done = machine.run("status")
    assert done.returncode == 1
    assert "HTLEASE_TTL = 10m: is not a number of seconds" in done.stdout
    assert "nothing reads HTLEASE_TLL" in done.stdout and "HTLEASE_SITE" not in done.stdout
    machine.ok(machine.install("ep", "--set", "HTLEASE_TTL="))
    machine.write("50-site.conf", "")
    shown = machine.ok(machine.run("status"))
    assert "each has a value that it takes" in shown


def test_what_htcondor_does_not_parse_is_taken_back(machine: Machine) -> None:
    machine.ok(machine.install("ep", "--url", _URL))
    machine.write("70-site.conf", "if $(HTLEASE_WRAP_JOBS:False)\n  this is no line\nendif\n")
    before = machine.snapshot()
    refusal = machine.refused(machine.install("ep", "--set", "HTLEASE_WRAP_JOBS=True"))
    assert "cannot read its configuration" in refusal and "nothing was changed" in refusal
    assert machine.snapshot() == before


def test_a_hook_that_htcondor_would_not_run_is_taken_back(machine: Machine) -> None:
    before = machine.snapshot()
    machine.write("70-site.conf", "HTLEASE_HOOK_PREPARE_JOB = /elsewhere\n")
    assert "another file sets it" in machine.refused(machine.install("ep"))
    machine.write("70-site.conf", "")
    machine.hooks.mkdir()
    machine.hooks.chmod(0o777)
    assert "everybody may write" in machine.refused(machine.install("ep"))
    machine.hooks.rmdir()
    (machine.local / "70-site.conf").unlink()
    assert machine.snapshot() == before


def test_the_routers_hooks_find_the_agent_beside_them(machine: Machine) -> None:
    machine.write("10-site.conf", "HTLEASE_AGENT_SOCKET = /run/there.sock\n")
    machine.ok(machine.install("router"))
    assert (machine.hooks / "agent.sock").readlink() == Path("/run/there.sock")
    assert machine.value("JOB_ROUTER_HOOK_KEYWORD") == "HTLEASE_ROUTER"


def test_a_hook_that_has_gone_is_a_problem_in_status(machine: Machine) -> None:
    machine.ok(machine.install("ep", "--url", _URL))
    (machine.hooks / "prepare_job").unlink()
    done = machine.run("status", "--pyz", machine.pyz)
    assert done.returncode == 1
    assert "HTLEASE_HOOK_PREPARE_JOB" in done.stdout and "No such file" in done.stdout


def test_two_roles_share_the_programs_and_leave_them_to_each_other(machine: Machine) -> None:
    before = machine.snapshot()
    machine.ok(machine.install("ep", "--url", _URL))
    machine.ok(machine.install("ap", "--url", _URL))
    machine.ok(machine.run("uninstall", "--role", "ap"))
    assert (machine.hooks / "prepare_job").is_file()
    assert not (machine.hooks / "shadow_prepare_job").is_symlink()
    machine.ok(machine.run("uninstall", "--role", "ep"))
    assert machine.snapshot() == before


def test_an_upgrade_leaves_the_pyz_that_wrappers_were_started_from(
    machine: Machine, tmp_path: Path
) -> None:
    machine.ok(machine.install("ep", "--url", _URL))
    started_from = (machine.hooks / "htlease-ep.pyz").resolve()
    newer = tmp_path / "newer.pyz"
    newer.write_bytes(machine.pyz.read_bytes() + b"\0")
    assert "another one" in machine.ok(machine.run("status", "--pyz", newer))
    machine.ok(machine.run("install", "--role", "ep", "--pyz", newer))
    assert (machine.hooks / "prepare_job").read_bytes() == newer.read_bytes()
    assert started_from.read_bytes() == machine.pyz.read_bytes()


def test_which_of_two_configurations_is_meant_is_never_guessed(
    machine: Machine, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    for name in ("condor", "condor-ce"):
        folder = image / "etc" / name / "config.d"
        folder.mkdir(parents=True)
        (folder.parent / "condor_config").write_text(
            f"LIBEXEC = /usr/libexec/{name}\nLOCAL_CONFIG_DIR = /etc/{name}/config.d\n"
        )
    environment = {k: v for k, v in machine.environment.items() if k != "CONDOR_CONFIG"}
    unnamed = Machine(machine.directory, machine.version, environment, machine.pyz)
    refusal = unnamed.refused(unnamed.install("ap", "--prefix", image))
    assert "etc/condor/condor_config" in refusal and "etc/condor-ce/condor_config" in refusal
    environment["CONDOR_CONFIG"] = "/etc/condor-ce/condor_config"
    told = unnamed.ok(unnamed.install("ap", "--prefix", image))
    assert f"{image}/etc/condor-ce/condor_config" in told.splitlines()[0]
    assert (image / "etc/condor-ce/config.d/60-htlease-ap.conf").is_file()
    assert (image / "usr/libexec/condor-ce/htlease/shadow_prepare_job").is_file()
    assert not list((image / "etc/condor/config.d").iterdir())


def test_what_cannot_be_meant_is_refused_in_a_sentence(machine: Machine) -> None:
    machine.environment["CONDOR_CONFIG"] = str(machine.directory / "nowhere")
    assert "nowhere" in machine.refused(machine.run("status"))
    machine.environment["CONDOR_CONFIG"] = str(machine.directory / "condor_config")
    assert "is not there" in machine.refused(machine.run("uninstall", "--role", "ep"))
    assert machine.run("install", "--role", "ep", "--set", "FOO=1").returncode == 2
    assert machine.run("install", "--role", "ep", "--hook-dir", "relative").returncode == 2
    assert "not installed" in machine.ok(machine.run("status"))
