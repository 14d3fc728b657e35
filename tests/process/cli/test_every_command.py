"""Every command with wrong input, no server, odd files, 80 columns and LC_ALL=C.

The commands come from click's own tree, so one that is added later is tried too. Each is run as a
process of its own, forked from one that has loaded them all.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from tests.serving import ServerProcess

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import Plan
from htlease.wire.lease_client import LeaseClient
from htlease.wire.transport import HttpTransport
from htlease_cli.cli import htlease, main

USAGE, AWAY, CONFIGURATION, REFUSED = 2, 75, 78, 1
#: A port at which nobody listens.
NOBODY = "http://127.0.0.1:1"
#: What would go on until it is ended, or builds a pool.
_STAYS = {"serve", "agent", "scenario", "pool"}
#: What no type says of their options: a time, one of two, a directory.
_CHOOSY = {
    ("dag", "rebuild"),
    *(("maintenance", verb) for verb in ("announce", "move", "start")),
    ("stage", "adopt"),
    *(("token", verb) for verb in ("mint", "revoke")),
}
_TIME_LIMIT_SECONDS = 30


class Done(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


def leaves(
    command: click.Command = htlease, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that does something, with the words that lead to it."""
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from leaves(below, (*words, name))
    else:
        yield words, command


LEAVES = list(leaves())
IDS = [" ".join(words) for words, _ in LEAVES]
every_command = pytest.mark.parametrize(("words", "command"), LEAVES, ids=IDS)


def run(arguments: Sequence[str], folder: Path, **environment: str) -> Done:
    """Run the command in a child in that folder, with an environment of its own."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _be_the_command(arguments, folder, environment, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Done(os.waitstatus_to_exitcode(status), *texts)


def _be_the_command(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], out: int, err: int
) -> None:
    status = 99
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_TIME_LIMIT_SECONDS)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(folder)
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        os.environ.clear()
        os.environ.update(
            {
                **kept,
                "XDG_STATE_HOME": str(folder / "state"),
                "XDG_RUNTIME_DIR": str(folder / "state"),
                "CONDOR_CONFIG": "/dev/null",
                "HTLEASE_URL": NOBODY,
                "BEARER_TOKEN": "token",
                **environment,
            }
        )
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False, encoding="ascii")
        sys.stderr = os.fdopen(2, "w", closefd=False, encoding="ascii", errors="backslashreplace")
        main(list(arguments))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 98
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def one_line(done: Done, *statuses: int) -> str:
    """Return the one line in which a command has failed."""
    assert done.status in statuses, done
    assert "Traceback" not in done.err + done.out
    assert "mistake in htlease" not in done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done
    assert re.fullmatch(r"htlease: \S.*[.?]", lines[0]), lines[0]
    return lines[0]


def given(command: click.Command, path: str, word: str = "w") -> list[str]:
    """Return arguments that a command takes, with `path` for each file."""
    words: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            if parameter.required or parameter.nargs == -1:
                words.append(value_for(parameter, path, word))
        elif parameter.required:
            words += [parameter.opts[0], value_for(parameter, path, word)]
    return words


def value_for(parameter: click.Parameter, path: str, word: str = "w") -> str:
    """Return a value of a parameter's type."""
    kind = parameter.type
    if isinstance(kind, (click.Path, click.File)):
        return path
    if isinstance(kind, click.Choice):
        return str(next(iter(kind.choices)))
    if kind.name in ("integer", "integer range", "float", "float range"):
        return "1"
    return {"duration": "7d", "workflow/subjob": f"{word}/s"}.get(kind.name, word)


@every_command
def test_an_option_that_there_is_not_is_one_line_with_what_to_do(
    words: tuple[str, ...], command: click.Command, tmp_path: Path
) -> None:
    line = one_line(run([*words, "--no-such-option"], tmp_path), USAGE)
    assert f"`htlease {' '.join(words)} --help` shows how." in line


@every_command
def test_arguments_too_few_or_too_many_are_one_line(
    words: tuple[str, ...], command: click.Command, tmp_path: Path
) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\x00")
    takes_all = any(one.nargs == -1 for one in command.params)
    if not takes_all:
        many = [*words, *given(command, "odd"), *["more"] * 9]
        one_line(run(many, tmp_path), USAGE)
    if any(one.required for one in command.params):
        one_line(run([*words], tmp_path), USAGE)


#: What no type of ours takes.
WRONG = {
    "duration": ("0d", "8", "-1h", "1e9d", "9" * 400 + "d", "\u0661h", ""),
    "workflow/subjob": ("none", "/", "a/", "/b", "a b/c", "\udcff/x", "a/" + "x" * 5000),
    "workflow": ("", "a/b", "a b", "\udcff", "x" * 5000),
    "name": ("", "a/b", "\udcff", "x" * 5000),
    "integer": ("one", "1.5", ""),
    "integer range": ("one", "-7", ""),
    "float": ("one", ""),
    "choice": ("none of them",),
}


def _cases() -> Iterator[tuple[tuple[str, ...], click.Command, click.Parameter, str]]:
    for words, command in LEAVES:
        for parameter in command.params:
            for value in WRONG.get(parameter.type.name, ()):
                yield words, command, parameter, value


@pytest.mark.parametrize("words", sorted({words for words, *_ in _cases()}), ids=" ".join)
def test_a_value_of_the_wrong_kind_is_one_line_that_names_it(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\x00")
    for case_words, command, parameter, value in _cases():
        if case_words != words:
            continue
        arguments = given(command, "odd")
        if isinstance(parameter, click.Argument):
            arguments = [value if one == value_for(parameter, "odd") else one for one in arguments]
            if value not in arguments:
                arguments.append(value)
        else:
            arguments += [parameter.opts[0], value]
        separated = ["--", *arguments] if value.startswith("-") else arguments
        if isinstance(parameter, click.Argument):
            arguments = separated
        one_line(run([*words, *arguments], tmp_path), USAGE, CONFIGURATION)


@pytest.mark.parametrize(
    ("words", "command"),
    [leaf for leaf in LEAVES if leaf[0][0] not in _STAYS],
    ids=[" ".join(words) for words, _ in LEAVES if words[0] not in _STAYS],
)
def test_without_a_server_it_says_so_or_does_not_need_one(
    words: tuple[str, ...], command: click.Command, tmp_path: Path
) -> None:
    (tmp_path / "odd").write_bytes(b"not what anybody wants \xff\x00\n")
    done = run([*words, *given(command, "odd")], tmp_path)
    if done.status == 0 or (words == ("doctor",) and done.status == REFUSED):
        assert "Traceback" not in done.err + done.out
        return
    one_line(done, AWAY, CONFIGURATION, REFUSED, *([USAGE] if words in _CHOOSY else []))


TAKE_FILES = [
    (words, command)
    for words, command in LEAVES
    if words[0] not in _STAYS and any(isinstance(one.type, click.Path) for one in command.params)
]
NO_FILES = {"odd": bytes(range(256)), "brackets": b"[" * 100_000}


@pytest.mark.parametrize("kind", ["missing", "directory", "loop", *NO_FILES])
@pytest.mark.parametrize(
    ("words", "command"), TAKE_FILES, ids=[" ".join(words) for words, _ in TAKE_FILES]
)
def test_a_file_that_cannot_be_used_is_one_line(
    words: tuple[str, ...], command: click.Command, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind in NO_FILES:
        path.write_bytes(NO_FILES[kind])
    for parameter in [one for one in command.params if isinstance(one.type, click.Path)]:
        arguments = given(command, str(path))
        if isinstance(parameter, click.Option) and not parameter.required:
            arguments += [parameter.opts[0], str(path)]
        done = run([*words, *arguments], tmp_path)
        assert "Traceback" not in done.err + done.out, (arguments, done)
        assert "mistake in htlease" not in done.err, (arguments, done)
        if done.status not in (0,) and words != ("doctor",):
            one_line(done, USAGE, AWAY, CONFIGURATION, REFUSED)


@every_command
def test_help_fits_into_80_columns_of_ascii(
    words: tuple[str, ...], command: click.Command, tmp_path: Path
) -> None:
    done = run([*words, "--help"], tmp_path, LC_ALL="C", COLUMNS="80", PYTHONUTF8="0")
    assert (done.status, done.err) == (0, "")
    assert done.out.isascii()
    long = [line for line in done.out.splitlines() if len(line) > 80]
    assert long == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "refused"),
        ("http://127.0.0.1:1/", "refused"),
        ("nonsense", "URL"),
        ("ftp://127.0.0.1:1", "ftp"),
        ("http://127.0.0.1:notaport", "port"),
        ("http://[::1", "URL"),
        ("http://no-such-host.invalid:1", "no-such-host.invalid"),
        ("", ""),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(url: str, said: str, tmp_path: Path) -> None:
    line = one_line(run(["list", "--server", url], tmp_path), AWAY, CONFIGURATION)
    assert said.lower() in line.lower()


def test_a_directory_of_path_that_nobody_may_read_hides_nothing_else(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    done = run(["doctor"], tmp_path, PATH=f"{locked}:{loop}:{tmp_path}/none:/proc/1/cwd:/dev/null")
    assert done.status in (0, REFUSED)
    assert "Traceback" not in done.err + done.out


def test_who_speaks_tls_to_a_plain_server_is_told(server: ServerProcess, tmp_path: Path) -> None:
    url = server.url.replace("http://", "https://")
    line = one_line(run(["list", "--server", url], tmp_path), AWAY)
    assert "it speaks no TLS; name it with http://" in line


@pytest.mark.parametrize(
    "words",
    [
        *("cancel x/s", "commit x/s", "commit x", "explain x/s", "history x/s", "show x/s"),
        *("show x", "list x", "logs x", "find x", "settle x/s --outcome failed"),
        *("workflow export x", "dag status x", "dag hold x", "dag reconcile x"),
    ],
)
def test_what_the_server_does_not_know_is_said_with_where_to_look(
    server: ServerProcess, tmp_path: Path, words: str
) -> None:
    env = {"HTLEASE_URL": server.url, "BEARER_TOKEN": server.admin_token}
    line = one_line(run(words.split(), tmp_path, **env), REFUSED)
    assert "x" in line and "`htlease list`" in line


def test_a_table_is_no_wider_than_the_terminal(server: ServerProcess, tmp_path: Path) -> None:
    key = SubjobKey("a-workflow-with-a-long-name", "and-a-subjob-with-a-longer-one")
    client = LeaseClient(HttpTransport(server.url, server.admin_token), key)
    job = "ap1.a-long-domain.example.org#1234567.0#1795225431"
    acquire = m.Acquire("0123456789abcdef", global_job_id=job, host="worker.example.org")
    lease = client.acquire(acquire)
    client.call(m.Abandon(lease.fence, lease.nonce, "evicted"))
    env = {"HTLEASE_URL": server.url, "BEARER_TOKEN": server.admin_token, "COLUMNS": "80"}
    for words in (["list"], ["list", key.workflow], ["show", str(key)], ["history", str(key)]):
        done = run(words, tmp_path, **env)
        tables = [line for line in done.out.splitlines() if not line.startswith("waits for")]
        assert done.status == 0 and max(map(len, tables)) <= 80, done.out


def test_what_a_payload_saved_is_shown(server: ServerProcess, tmp_path: Path) -> None:
    saved = 'step = 3\nname = "\u00e9\x1b[2J"\n' + "x" * 500
    client = LeaseClient(HttpTransport(server.url, server.admin_token), SubjobKey("shown", "s"))
    lease = client.acquire(m.Acquire("0123456789abcdef", plan=Plan.single()))
    client.call(m.Enter(lease.fence, lease.nonce, "run"))
    client.renew(lease, saved)
    shown = run(
        ["show", "shown/s"], tmp_path, HTLEASE_URL=server.url, BEARER_TOKEN=server.admin_token
    )
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "step = 3" in lines
    assert 'name = "\u00e9\\x1b[2J"' in lines
    assert "... (--json has it all)" in lines
    assert max(map(len, shown.out.splitlines()[:10])) <= 80


def test_the_log_is_cut_to_its_last_lines(server: ServerProcess, tmp_path: Path) -> None:
    client = LeaseClient(HttpTransport(server.url, server.admin_token), SubjobKey("told", "s"))
    for number in range(8):
        lease = client.acquire(m.Acquire(f"0123456789abcde{number}", kind="operator"))
        client.call(m.Abandon(lease.fence, lease.nonce, f"look {number}"))
    env = {"HTLEASE_URL": server.url, "BEARER_TOKEN": server.admin_token}
    lines = {
        tail: [
            line
            for line in run(["logs", "told", "--tail", tail], tmp_path, **env).out.splitlines()
            if " server " in line
        ]
        for tail in ("4", "0", "1000")
    }
    assert [len(lines[tail]) for tail in ("4", "0")] == [4, 0]
    assert lines["4"] == lines["1000"][-4:] and len(lines["1000"]) >= 16
