"""The built pyz starts in any environment, and the payload finds what it would find without it.

Each case runs the same payload natively and behind the pyz, from the same start: what is right is
what native gets.
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.process.launching import NO_EXEC, READ_ONLY, Launch, Outcome
from tests.serving import ServerProcess

from htlease_lab.pool.debian import unpacked
from htlease_lab.pool.instance import base_directory

#: Name of a root -> its suite and packages.
ROOTS = {
    "python-bullseye": ("bullseye", "python3"),
    "python-bookworm": ("bookworm", "python3"),
    "python-trixie": ("trixie", "python3"),
    "python-minimal": ("bookworm", "python3-minimal"),
    "bare": ("bookworm", "busybox-static"),
}
SHELLS = {"dash": "/bin/dash", "bash": "/bin/bash", "busybox": "busybox"}
#: A payload that shows what it was given, byte for byte.
FILES = ("environ", "cmdline", "oom_score_adj", "stat", "limits", "status")
LOOK = ("/bin/cat", *(f"/proc/self/{name}" for name in FILES))
#: A user without any other process.
NOBODY = 54321
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A folder in a root with the pyz, as shells of several kinds would run it."""

    root: Path
    path: str
    server: ServerProcess

    @property
    def outside(self) -> Path:
        return self.root / self.path[1:]

    def launch(self, uid: int = 0) -> Launch:
        """Return a start as an execution point makes it, in a scratch directory of its own."""
        scratch = f"{self.path}/dir_{next(_NUMBERS)}"
        outside = self.root / scratch[1:]
        outside.mkdir()
        outside.chmod(0o777)
        (outside / "htlease.token").write_text(self.server.admin_token)
        (outside / "htlease.token").chmod(0o600)
        os.chown(outside / "htlease.token", uid, uid)
        return Launch(
            root=self.root,
            directory=scratch,
            environ=(f"_CONDOR_SCRATCH_DIR={scratch}".encode(), b"PATH=/usr/bin:/bin"),
        )

    def tracked(self, shell: str = "dash") -> list[str]:
        """Return the words that put a lease around a payload."""
        key = f"start/s{next(_NUMBERS)}"
        return [f"{self.path}/{shell}.pyz", "run", "--server", self.server.url, "--key", key, "--"]

    def untracked(self, shell: str = "dash") -> list[str]:
        """Return the words of a site in front of a payload that has no server."""
        return [f"{self.path}/{shell}.pyz"]

    def is_complete(self, words: list[str]) -> bool:
        key = words[words.index("--key") + 1]
        return bool(self.server.subjob(key)["attempts"][0]["exit_code"] == 0)


@pytest.fixture(scope="module")
def place_in(pyz: Path, server: ServerProcess) -> Iterator[Callable[[str], Place]]:
    made: dict[str, Place] = {}

    def root_of(name: str) -> Path:
        suite, packages = ROOTS[name]
        return unpacked(suite, packages, base_directory() / "roots" / name, print)

    def make(name: str) -> Place:
        if name in made:
            return made[name]
        place = Place(root_of(name), f"/tmp/htlease-start-{os.getpid()}", server)
        place.outside.mkdir()
        place.outside.chmod(0o755)
        shutil.copy(root_of("bare") / "bin" / "busybox", place.outside / "busybox")
        for shell, program in SHELLS.items():
            folder = place.outside / f"{shell}-as"
            folder.mkdir()
            (folder / "sh").symlink_to(Path(place.path, program))
            _, rest = pyz.read_bytes().split(b"\n", 1)
            copy = place.outside / f"{shell}.pyz"
            copy.write_bytes(f"#!{place.path}/{shell}-as/sh\n".encode() + rest)
            copy.chmod(0o755)
        made[name] = place
        return place

    yield make
    for place in made.values():
        shutil.rmtree(place.outside)


@pytest.fixture(scope="module")
def place(place_in: Callable[[str], Place]) -> Place:
    return place_in("python-bookworm")


@dataclass(frozen=True)
class Seen:
    """What LOOK says of the process that it ran in."""

    environ: tuple[bytes, ...]
    argv: tuple[bytes, ...]
    oom_score_adj: str
    nice: str
    limits: str
    ignored: int
    blocked: int
    umask: str

    @classmethod
    def by(cls, outcome: Outcome) -> Seen:
        assert outcome.status == 0, outcome
        parts = outcome.output.split(b"\0")
        *strings, rest = parts
        at = len(strings) - len(LOOK)
        environ = tuple(one for one in strings[:at] if not one.startswith(b"HTLEASE"))
        lines = rest.decode().splitlines()
        stat = lines[1].rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        # glibc's posix_spawn leaves its own two signals (32, 33) ignored; no program can use them.
        return cls(
            environ=environ,
            argv=tuple(strings[at:]),
            oom_score_adj=lines[0],
            nice=stat[16],
            limits="\n".join(line for line in lines if line.startswith("Max ")),
            ignored=int(status["SigIgn"], 16) & ~(3 << 31),
            blocked=int(status["SigBlk"], 16),
            umask=status["Umask"].strip(),
        )


FUNCTIONS = tuple(
    f"BASH_FUNC_{name}%%=() {{  echo function; exit 3\n}}"
    for name in ("[", "test", "echo", "printf", "read", "trap", "exec", "unset", "set", "eval")
)
ENVIRONMENTS: dict[str, tuple[str | bytes, ...]] = {
    "plain": (),
    "path-elsewhere": ("PATH=/opt/app/bin",),
    "python": ("PYTHONHOME=/opt/python2.7", "PYTHONPATH=/opt", "PYTHONSTARTUP=x", "PYTHONCASEOK=1"),
    "python-settings": ("PYTHONUTF8=x", "PYTHONHASHSEED=x", "PYTHONMALLOC=nonsense"),
    "bad-libraries": ("LD_LIBRARY_PATH=./bad",),
    "bad-preload": ("LD_PRELOAD=/nowhere.so", "LD_BIND_NOW=1"),
    "glibc": ("GLIBC_TUNABLES=glibc.malloc.check=3", "MALLOC_PERTURB_=7", "OPENSSL_CONF=/nowhere"),
    "odd-names": ("a.b=1", "a-b=2", "1=3", "with blank=4", "=5=6", "ä=7"),
    "functions": FUNCTIONS,
    "shell-options": ("SHELLOPTS=errexit:noglob:nounset:noclobber", "BASHOPTS=execfail:extglob"),
    "shell-variables": ("IFS=/", "PS4=x", "CDPATH=/", "ENV=/nowhere", "BASH_ENV=/nowhere", "_=old"),
    "counted": ("SHLVL=5", "RANDOM=1", "SECONDS=2", "LINENO=3", "OPTIND=1", "PPID=1", "OPTARG=x"),
    "directories": ("PWD=/nowhere", "OLDPWD=/usr", "HOME=/nowhere", "TMPDIR=/nowhere"),
    "own-names": ("htlease_why=x", "htlease_kept_LD_PRELOAD=y", "htlease_python=/bin/false"),
    "posix": ("POSIXLY_CORRECT=1", "BASH_COMPAT=3.2", "ASH_STANDALONE=1"),
    "not-utf-8": (b"BYTES=\xff\xfe\x01", b"\xe4=\xf6"),
    "newlines": ("LINES_=a\nb=c\n\nd", "TAIL=\n", "QUOTES='\"\\$(exit 9)`exit 9`"),
    "doubled": ("TWICE=1", "TWICE=2", "TWICE=1", "EMPTY="),
    "locale-c": ("LC_ALL=C",),
    "locale-posix": ("LANG=POSIX", "LC_CTYPE=C"),
    "locale-latin-1": ("LC_ALL=de_DE.ISO-8859-1", "LANG=x.y", b"NAME=\xe4"),
    "zone": ("TZ=:/nowhere/at/all", "SOURCE_DATE_EPOCH=x"),
    "many": tuple(f"MANY_{number}={'x' * 60}" for number in range(2000)),
    "long": (f"LONG={'x' * 130_000}", f"BASH_FUNC_f%%=() {{  {'x' * 120_000}\n}}"),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_payload_has_its_environment_byte_for_byte(place: Place, name: str, shell: str) -> None:
    start = place.launch().with_environ(*ENVIRONMENTS[name])
    bad = place.root / start.directory[1:] / "bad"
    bad.mkdir()
    for library in ("libz.so.1", "libm.so.6", "libpython3.11.so.1.0", "libexpat.so.1"):
        (bad / library).write_text("no library")
    native = Seen.by(start.run(*LOOK))
    assert {*map(os.fsencode, ENVIRONMENTS[name])} - {b"=5=6"} <= {*native.environ}
    untracked = start.run(*place.untracked(shell), *LOOK)
    assert Seen.by(untracked) == native, untracked.messages
    if shell != "dash" and name != "plain":
        return  # what follows the shell is the same
    words = place.tracked(shell)
    tracked = start.run(*words, *LOOK)
    assert Seen.by(tracked) == native, tracked.messages
    assert place.is_complete(words)


ALL_PYTHONS = ("python-bullseye", "python-bookworm", "python-trixie")


@pytest.mark.parametrize("name", ["path-elsewhere", "python", "bad-libraries", "odd-names"])
@pytest.mark.parametrize("root", ALL_PYTHONS)
def test_every_python_starts_in_every_environment(
    place_in: Callable[[str], Place], root: str, name: str
) -> None:
    place = place_in(root)
    start = place.launch().with_environ(*ENVIRONMENTS[name])
    native = Seen.by(start.run(*LOOK))
    words = place.tracked()
    outcome = start.run(*words, *LOOK)
    assert Seen.by(outcome) == native, outcome.messages
    assert outcome.messages == "" or "job ad" in outcome.messages
    assert place.is_complete(words)
    key = f"start/s{next(_NUMBERS)}"
    of_site = start.with_environ(f"HTLEASE_URL={place.server.url}", f"HTLEASE_KEY={key}")
    assert Seen.by(of_site.run(*place.untracked(), *LOOK)) == native
    assert place.server.subjob(key)["attempts"][0]["exit_code"] == 0


#: What a process has besides its environment.
STARTS: dict[str, dict[str, Any]] = {
    "ignored": {"ignored": (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT)},
    "one-ignored": {"ignored": (signal.SIGPIPE,)},
    "blocked": {"blocked": (signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE)},
    "umask": {"umask": 0o137},
    "nice": {"nice": 3, "oom_score_adj": 321},
    "limits": {
        "limits": {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_FSIZE: 4096,
            resource.RLIMIT_NOFILE: 64,
            resource.RLIMIT_STACK: 1 << 20,
            resource.RLIMIT_CPU: 100,
        }
    },
    "user": {"uid": NOBODY, "umask": 0o77},
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", STARTS)
def test_the_payload_has_the_rest_of_its_start(place: Place, name: str, shell: str) -> None:
    start = replace(place.launch(STARTS[name].get("uid", 0)), **STARTS[name])
    native = Seen.by(start.run(*LOOK))
    for words in (place.untracked(shell), place.tracked(shell)):
        outcome = start.run(*words, *LOOK)
        assert Seen.by(outcome) == native, outcome.messages


@pytest.mark.parametrize("shell", SHELLS)
def test_the_payload_has_the_open_files_of_its_start(place: Place, shell: str) -> None:
    look = ("/bin/ls", "/proc/self/fd")
    for start in (
        place.launch(),
        replace(place.launch(), inherited=(3, 7, 10, 11, 63)),
        replace(place.launch(), closed=(0,)),
    ):
        native = start.run(*look)
        assert native.status == 0
        for words in (place.untracked(shell), place.tracked(shell)):
            outcome = start.run(*words, *look)
            assert outcome.output == native.output, outcome.messages


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_closed_streams_are_closed_for_the_payload_and_nothing_else_is_there(
    place: Place, closed: tuple[int, ...], shell: str
) -> None:
    start = replace(place.launch(), closed=closed)
    look = ("/bin/sh", "-c", "ls /proc/$$/fd >seen; mv seen seen.$1; exit 5", "sh")
    scratch = place.root / start.directory[1:]
    seen: list[str] = []
    for words in ((), place.untracked(shell), place.tracked(shell)):
        assert start.run(*words, *look, str(len(seen))).status == 5
        seen.append((scratch / f"seen.{len(seen)}").read_text())
    assert seen[1:] == [seen[0]] * 2


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pipe_that_nobody_reads_ends_as_it_does_natively(place: Place, shell: str) -> None:
    """HTCondor starts jobs with SIGPIPE ignored, and `yes` then ends with 1."""
    end = ("/bin/bash", "-c", "yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}")
    for ignored in ((), (signal.SIGPIPE,)):
        start = replace(place.launch(), ignored=ignored)
        native = start.run(*end)
        assert native.status == (1 if ignored else 141)
        for words in (place.untracked(shell), place.tracked(shell)):
            assert start.run(*words, *end).status == native.status


def arguments_of(count: int, length: int) -> tuple[str, ...]:
    return tuple(f"{number}{'y' * length}" for number in range(count))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "arguments",
    [
        (b"\xff\xfe", b"", b"two words", b"line\nbreak", b".", b"--", b"*", b"'\"$(exit 9)"),
        arguments_of(2000, 100),
        arguments_of(2, 100_000),
    ],
    ids=["odd", "2000", "200kB"],
)
def test_arguments_come_through(
    place: Place, arguments: tuple[str | bytes, ...], shell: str
) -> None:
    start = place.launch()
    echo = ("/usr/bin/printf", "%s\\0")
    native = start.run(*echo, *arguments)
    assert native.output.count(b"\0") == len(arguments)
    for words in (place.untracked(shell), place.tracked(shell)):
        outcome = start.run(*words, *echo, *arguments)
        assert outcome == replace(native, messages=outcome.messages)


HERE = """\
#!/bin/sh
mkdir -p work && cd work || exit 1
. "$(dirname "$0")/lib.sh"
"""


@pytest.mark.parametrize("named", ["./here.sh", "sub/../here.sh", "FULL"])
def test_a_script_finds_its_neighbours_after_it_changed_its_directory(
    place: Place, named: str
) -> None:
    start = place.launch()
    scratch = place.root / start.directory[1:]
    (scratch / "sub").mkdir()
    (scratch / "here.sh").write_text(HERE)
    (scratch / "here.sh").chmod(0o755)
    (scratch / "lib.sh").write_text("echo lib loaded; exit 6\n")
    words = place.tracked()
    outcome = start.run(*words, named.replace("FULL", f"{start.directory}/here.sh"))
    assert (outcome.status, outcome.output) == (6, b"lib loaded\n"), outcome.messages


# ------------------------------------------------------------------------- no Python that will do


@pytest.mark.parametrize("root", ["bare", "python-minimal"])
@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_python_the_payload_runs_untracked_and_it_is_said(
    place_in: Callable[[str], Place], root: str, shell: str
) -> None:
    place = place_in(root)
    start = place.launch().with_environ("LD_BIND_NOW=1", "OPENSSL_CONF=/a b", "PYTHONHOME=/x")
    native = Seen.by(start.run(*LOOK))
    for words in (place.untracked(shell), place.tracked(shell), [*place.tracked(shell)[:-1]]):
        outcome = start.run(*words, *LOOK)
        seen = Seen.by(outcome)
        assert {*native.environ} <= {*seen.environ}
        added = {entry.split(b"=")[0] for entry in {*seen.environ} - {*native.environ}}
        assert added <= {b"PWD", b"OLDPWD", b"SHLVL", b"_"}
        assert replace(seen, environ=native.environ) == native
        assert "no Python of 3.9 or later that works" in outcome.messages
        assert "runs untracked" in outcome.messages
        assert outcome.messages.count("\n") == 1
    assert start.run(*place.tracked(shell), "/bin/sh", "-c", "exit 5").status == 5


@pytest.mark.parametrize(
    ("entries", "arguments", "said"),
    [
        (["HTLEASE_ON_NO_SERVER=idle"], ["run", "--", "/bin/true"], "HTLEASE_ON_NO_SERVER is idle"),
        (["HTLEASE_ON_NO_SERVER=hold"], ["/bin/true"], "HTLEASE_ON_NO_SERVER is hold"),
        ([], ["run", "--plan", "plan.toml"], "the phases of a plan"),
        ([], ["run", "--ttl", "5", "--profile=cts", "--", "/bin/true"], "the phases of a plan"),
        ([], ["run"], "set HTLEASE_PYTHON"),
        ([], ["phase", "enter", "x"], "set HTLEASE_PYTHON"),
        ([], [], "set HTLEASE_PYTHON"),
    ],
)
def test_without_a_python_what_may_not_run_untracked_is_refused(
    place_in: Callable[[str], Place], entries: list[str], arguments: list[str], said: str
) -> None:
    place = place_in("bare")
    outcome = place.launch().with_environ(*entries).run(*place.untracked(), *arguments)
    assert outcome.status == 78
    assert said in outcome.messages and outcome.messages.count("\n") == 1


def test_without_a_python_a_submitted_job_runs_what_its_ad_names(
    place_in: Callable[[str], Place],
) -> None:
    place = place_in("bare")
    start = place.launch()
    scratch = place.root / start.directory[1:]
    start = start.with_environ(f"_CONDOR_JOB_AD={start.directory}/.job.ad")
    (scratch / ".job.ad").write_text(
        'Cmd = "/home/me/job.sh"\nGlobalJobId = "ap#1.0#2"\nHTLeaseProgram = "a \\"b\\\\c.sh"\n'
    )
    (scratch / 'a "b\\c.sh').write_text('#!/bin/sh\necho "$@"; exit 4\n')
    shutil.copy(place.outside / "dash.pyz", scratch / "condor_exec.exe")
    outcome = start.run(f"{start.directory}/condor_exec.exe", "run", "--", "phase")
    assert (outcome.status, outcome.output) == (4, b"run -- phase\n"), outcome.messages
    assert "runs untracked" in outcome.messages
    within = start.with_environ("HTLEASE_ATTEMPT=ap#1.0#2@1.1")
    assert within.run(f"{start.directory}/condor_exec.exe", "phase", "enter", "x").status == 78


@pytest.mark.parametrize(
    ("policy", "status", "code"), [("run", 0, ""), ("idle", 2, "602"), ("hold", 73, "173")]
)
@pytest.mark.parametrize(
    "hook", ["shadow_prepare_job", "prepare_job_before_transfer", "prepare_job"]
)
def test_without_a_python_a_prepare_hook_does_what_the_policy_says(
    place_in: Callable[[str], Place], hook: str, policy: str, status: int, code: str
) -> None:
    place = place_in("bare")
    start = place.launch()
    (place.root / start.directory[1:] / hook).symlink_to(f"{place.path}/dash.pyz")
    outcome = start.run(f"{start.directory}/{hook}", f"--on-no-server={policy}", "--ttl=9")
    assert outcome.status == status
    assert outcome.output.decode().startswith(f"HookStatusCode = {code}\n" if code else "")
    assert "no Python" in outcome.messages


def test_a_python_that_is_broken_is_passed_over(place: Place) -> None:
    start = place.launch()
    scratch = place.root / start.directory[1:]
    for name, text in (
        ("kills", "#!/bin/sh\nkill -9 $$\n"),
        ("fails", "#!/bin/sh\nexit 0\n"),
        ("lies", "#!/bin/sh\necho Python 3.11\n"),
        ("no-program", "\x7fELF"),
    ):
        (scratch / name).write_text(text)
        (scratch / name).chmod(0o755)
        chosen = start.with_environ(f"HTLEASE_PYTHON={start.directory}/{name}")
        words = place.tracked()
        assert chosen.run(*words, "/bin/sh", "-c", "exit 5").status == 5
        assert place.server.subjob(words[5])["attempts"][0]["exit_code"] == 5


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_before_the_interpreter_runs_ends_the_start_as_it_would_end_a_payload(
    place: Place, shell: str, number: signal.Signals
) -> None:
    start = place.launch()
    python = place.root / start.directory[1:] / "python3"
    python.write_text(f"#!/bin/sh\nkill -{int(number)} $PPID\nexec sleep 0.3\n")
    python.chmod(0o755)
    chosen = start.with_environ(f"HTLEASE_PYTHON={start.directory}/python3")
    for words in (place.untracked(shell), place.tracked(shell)):
        outcome = chosen.run(*words, "/bin/sh", "-c", "echo ran")
        assert (outcome.status, outcome.output) == (-number, b""), outcome.messages


@pytest.mark.parametrize("shell", SHELLS)
def test_what_no_longer_fits_into_the_limit_of_arguments_runs_untracked(
    place: Place, shell: str
) -> None:
    """A stack of 512 KiB allows 128 KiB; written down, odd names take twice their room."""
    start = replace(place.launch(), limits={resource.RLIMIT_STACK: 512 << 10})
    start = start.with_environ(*(f"odd.{number}={'x' * 1000}" for number in range(70)))
    assert start.run("/bin/sh", "-c", "exit 5").status == 5
    for words in (place.untracked(shell), place.tracked(shell)):
        outcome = start.run(*words, "/bin/sh", "-c", "exit 5")
        assert outcome.status == 5, outcome.messages
        assert "cannot be started: the payload runs untracked" in outcome.messages


# ----------------------------------------------------------------------- limits, and what is absent

MIB = 1 << 20
LIMITS = {
    **{f"processes-{n}": {resource.RLIMIT_NPROC: n} for n in (1, 2, 3, 9, 40)},
    **{f"memory-{n}": {resource.RLIMIT_AS: n * MIB} for n in (3, 12, 16, 19, 24, 60)},
    **{f"data-{n}": {resource.RLIMIT_DATA: n * MIB} for n in (1, 2, 4, 5, 9, 12, 16)},
    **{f"files-{n}": {resource.RLIMIT_NOFILE: n} for n in (12, 13, 16)},
    **{f"stack-{n}k": {resource.RLIMIT_STACK: n << 10} for n in (16, 64, 256)},
    "file-size-0": {resource.RLIMIT_FSIZE: 0},
    "pending-signals-0": {resource.RLIMIT_SIGPENDING: 0, resource.RLIMIT_MEMLOCK: 0},
}


@pytest.mark.parametrize("name", LIMITS)
def test_no_limit_makes_a_payload_fail(place: Place, name: str) -> None:
    uid = NOBODY + os.getpid()
    start = replace(place.launch(uid), uid=uid, limits=LIMITS[name])
    for payload in ("exit 5", "/bin/true; /bin/true && exit 6"):
        native = start.run("/bin/sh", "-c", payload)
        server = f"HTLEASE_URL={place.server.url}"
        for words, more in (
            (place.tracked(), ()),
            (place.untracked(), (server, "HTLEASE_KEY=s/l")),
        ):
            outcome = start.with_environ(*more).run(*words, "/bin/sh", "-c", payload)
            assert outcome.status == native.status, outcome.messages
            assert "Traceback" not in outcome.messages


@pytest.mark.parametrize(
    "absent",
    [
        {"remounted": {"/tmp": READ_ONLY}},
        {"remounted": {"/tmp": READ_ONLY, "/var": READ_ONLY, "/etc": READ_ONLY}},
        {"has_dev": False},
        {"uid": NOBODY, "umask": 0o777},
        {"directory": "/proc"},
    ],
    ids=["read-only", "all-read-only", "no-dev", "umask", "elsewhere"],
)
def test_nothing_has_to_be_there_for_a_payload_to_run(place: Place, absent: dict[str, Any]) -> None:
    start = replace(place.launch(absent.get("uid", 0)), **absent)
    native = Seen.by(start.run(*LOOK))
    words = place.tracked()
    token = f"BEARER_TOKEN={place.server.admin_token}"
    for outcome in (
        start.run(*place.untracked(), *LOOK),
        start.with_environ(token).run(*words, *LOOK),
    ):
        seen = Seen.by(outcome)
        assert {*native.environ} == {*seen.environ} - {token.encode()}, outcome.messages
        assert replace(seen, environ=native.environ) == native
    assert place.is_complete(words)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_scratch_directory_that_nothing_may_be_executed_in(place: Place, shell: str) -> None:
    start = place.launch()
    start = replace(start, remounted={start.directory: NO_EXEC})
    words = place.tracked(shell)
    outcome = start.run(*words, *LOOK)
    assert Seen.by(outcome) == Seen.by(start.run(*LOOK)), outcome.messages


@pytest.mark.parametrize("shell", SHELLS)
def test_without_proc_what_a_shell_can_keep_is_kept_and_the_rest_is_said(
    place: Place, shell: str
) -> None:
    names = ("LD_LIBRARY_PATH=/x", "LD_BIND_NOW=1", "PYTHONHOME=/x", "LC_CTYPE=C", "TEXT=a b\nc")
    start = replace(place.launch().with_environ(*names, "od.d=1"), has_proc=False)
    for words in (place.untracked(shell), place.tracked(shell)):
        outcome = start.run(*words, "/usr/bin/env", "-0")
        given = {*outcome.output.split(b"\0")}
        assert {*start.environ} - {b"od.d=1"} <= given, outcome.messages
        assert not [one for one in given if one.startswith((b"htlease_", b"LC_CTYPE=C."))]
        assert "no identifiers" in outcome.messages


def test_an_image_without_a_shell_is_as_the_manual_says(place: Place) -> None:
    start = place.launch()
    gone = place.outside / "gone.pyz"
    text = (place.outside / "dash.pyz").read_bytes()
    gone.write_bytes(b"#!/nowhere/sh" + text[text.index(b"\n") :])
    gone.chmod(0o755)
    assert start.run(f"{place.path}/gone.pyz", "/bin/true").status == 99  # no exec at all
