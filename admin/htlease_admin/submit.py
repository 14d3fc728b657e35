"""`htlease submit`: what is asked for, what is looked at before any call, and what is printed."""

from __future__ import annotations

import datetime
import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from htlease.attempt import NAME_LENGTH_MAX, SubjobKey
from htlease.errors import BadConfig, InvalidField
from htlease.plan import check_ttl
from htlease.plan_file import read_plan_file
from htlease_admin import schedd
from htlease_admin.checks import is_loopback
from htlease_admin.enrolment import check_distinct
from htlease_admin.lease_server import as_json
from htlease_admin.parameters import DURATION, WORKFLOW, json_option
from htlease_admin.pyz import find_pyz
from htlease_admin.queue_statement import check_one_queue
from htlease_admin.session import Session, pass_session
from htlease_admin.settings import state_directory
from htlease_admin.submission import Submission, carry_out
from htlease_admin.submit_file import Description, Wrapping, sends_executable, sends_files, wrap
from htlease_admin.tables import Table, print_table
from htlease_admin.token_files import TokenFiles, remove_expired

_JOBS_SHOWN = 20
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._~@:=+,-]+")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[-- NAME=VALUE...]")
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Phases of each job (TOML or JSON).",
)
@click.option("--workflow", type=WORKFLOW, help="For jobs without HTLeaseKey [file name and time].")
@click.option("--ttl", "ttl_seconds", type=DURATION, help="How long a lease lasts [120s].")
@click.option(
    "--token-ttl",
    "token_ttl_seconds",
    type=DURATION,
    default="7d",
    show_default=True,
    help="How long the jobs' tokens are good for; longer than queue and run together.",
)
@click.option(
    "--token-dir",
    type=click.Path(path_type=Path),
    help="Where to keep token files; the schedd must see it [$XDG_STATE_HOME/htlease].",
)
@click.option("--pyz", type=click.Path(path_type=Path), help="The wrapper file to send along.")
@click.option(
    "--schedd",
    "schedd_name",
    metavar="NAME",
    help="Submit to this schedd, which must see the same files.",
)
@click.option("--force", is_flag=True, help="Run complete and cancelled subjobs again.")
@click.option("--dry-run", is_flag=True, help="Print the submit description and stop.")
@json_option
@pass_session
def submit(
    session: Session,
    file: Path,
    overrides: tuple[str, ...],
    plan_path: Path | None,
    workflow: str | None,
    ttl_seconds: float | None,
    token_ttl_seconds: float,
    token_dir: Path | None,
    pyz: Path | None,
    schedd_name: str | None,
    force: bool,
    dry_run: bool,
    wants_json: bool,
) -> None:
    """Submit FILE, an ordinary submit file, with the wrapper in front of its executable.

    Every job is enrolled and gets a token of its own. With the server away nothing is submitted;
    if the schedd refuses, the enrolled subjobs are cancelled. After `--` come submit commands that
    take the place of those in the file: `-- request_memory=2GB`.
    """
    submission_id = secrets.token_hex(8)
    now = time.time()
    state = (token_dir or state_directory(os.environ)).absolute()
    tokens = TokenFiles.of(state, submission_id, now + token_ttl_seconds)
    plan_file = None if plan_path is None else read_plan_file(plan_path)
    description = _read(file, overrides)
    wrapped = wrap(
        description,
        Wrapping(
            pyz=find_pyz(pyz),
            server_url=session.connection().url,
            workflow=workflow or default_workflow(file.stem, now, submission_id),
            token_path=tokens.path_in_submit_file,
            plan_path=None if plan_path is None else plan_path.absolute(),
            plan_has_commands=plan_file is not None and bool(plan_file.commands),
            ttl_seconds=None if ttl_seconds is None else check_ttl(ttl_seconds),
            submit_directory=Path.cwd(),
            submission_id=submission_id,
            on_wall_time=plan_file.after_wall_time if plan_file else None,
        ),
    )
    keys = tuple(
        SubjobKey.parse(text.strip().strip('"'))
        for text in schedd.expand_each(wrapped, "MY.HTLeaseKey")
    )
    if not keys:
        raise InvalidField(str(file), "queues no job")
    check_distinct(keys)
    if sends_executable(description.commands):
        _check_executables(set(schedd.expand_each(description, "executable")))
    if dry_run:
        click.echo(wrapped.text(), nl=False)
        return
    server = session.server()
    remove_expired(state, now)
    whole = Submission(
        submission_id,
        wrapped,
        keys,
        plan_file.plan if plan_file else None,
        tokens,
        token_ttl_seconds,
        schedd_name,
        force,
    )
    jobs = carry_out(whole, server, _say)
    if sends_files(wrapped.commands) and is_loopback(urlsplit(server.url).hostname or ""):
        _say(f"jobs on other machines cannot reach {server.url}; see `htlease doctor`")
    document = {
        "cluster": jobs[0].cluster,
        "jobs": [
            {"proc": job.proc, "global_job_id": job.global_job_id, "subjob": job.key}
            for job in jobs
        ],
    }
    if wants_json:
        click.echo(as_json(document))
        return
    click.echo(f"{len(jobs)} job(s) submitted to cluster {jobs[0].cluster}.")
    rows = [(f"{job.cluster}.{job.proc}", job.key) for job in jobs[:_JOBS_SHOWN]]
    print_table(Table(("JOB", "SUBJOB"), rows))
    if len(jobs) > _JOBS_SHOWN:
        click.echo(f"... and {len(jobs) - _JOBS_SHOWN} more: `htlease list {keys[0].workflow}`")


def _say(text: str) -> None:
    click.echo(f"htlease: {text}", err=True)


def _check_executables(paths: set[str]) -> None:
    """HTCondor makes an `executable` executable, and an input file it sends as it is."""
    for path in sorted(path.strip() for path in paths):
        if not Path(path).is_file():
            raise InvalidField("executable", f"{path}: there is no such file")
        if not os.access(path, os.X_OK):
            raise InvalidField("executable", f"{path} is not executable; run `chmod +x {path}`")


def default_workflow(stem: str, now: float, submission_id: str) -> str:
    """Return a workflow's name made of file name, time and chance: `sim-20261121-0345-1f2e`."""
    moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    name = _NOT_IN_NAMES.sub("-", stem)[: NAME_LENGTH_MAX // 2]
    return f"{name}-{moment:%Y%m%d-%H%M}-{submission_id[:4]}"


def _read(file: Path, overrides: Sequence[str]) -> Description:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise BadConfig(f"submit file {file}: {reason}") from None
    check_one_queue(text, str(file))
    given = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not (equals and name.strip()) or name.startswith("-"):
            raise InvalidField("override", f"{override!r} is not NAME=VALUE")
        # `+Name` is how submit files write an attribute, and `MY.Name` how the bindings do.
        given[re.sub(r"^\+", "MY.", name.strip())] = value.strip()
    return schedd.read_description(text, given)
