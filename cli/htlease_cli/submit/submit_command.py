"""`htlease submit`: what is asked for, what is looked at before any call, and what is printed."""

from __future__ import annotations

import datetime
import functools
import os
import re
import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from htlease.client.client import as_json
from htlease.client.connection import state_directory
from htlease.condor import bindings_process as schedd
from htlease.condor.bindings_process import read_jobs
from htlease.config.plan_file import read_plan_file
from htlease.errors import BadConfig, HTLeaseError, InvalidField
from htlease.rules.attempt import NAME_LENGTH_MAX
from htlease.rules.plan import check_ttl
from htlease_cli.doctor.checks import is_loopback
from htlease_cli.parameters import DURATION, WORKFLOW, json_option
from htlease_cli.pyz import find_pyz, kept_pyz
from htlease_cli.session import Session, pass_session
from htlease_cli.submit import condor_submit
from htlease_cli.submit.enrolment import check_distinct
from htlease_cli.submit.foresight import as_commands, foreseen_keys, own_workflow, with_includes
from htlease_cli.submit.submit_lines import Additions, appended
from htlease_cli.submit.token_files import TokenFiles, remove_expired
from htlease_cli.submit.transaction import Submission, Submitted, carry_out
from htlease_cli.tables import Table, print_table

_JOBS_SHOWN = 20
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._~@:=+,-]+")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("more", nargs=-1, metavar="[-- [NAME=VALUE...] [CONDOR_SUBMIT_OPTION...]]")
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Phases of each job (TOML or JSON).",
)
@click.option("--workflow", type=WORKFLOW, help="For jobs without HTLeaseKey [file name and time].")
@click.option("--ttl", "ttl_seconds", type=DURATION, help="How long a lease lasts [120s].")
@click.option(
    "--wait-server",
    "wait_server_seconds",
    type=DURATION,
    help="How long a job waits for the server before it runs later, or untracked [5m].",
)
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
@click.option("--dry-run", is_flag=True, help="Print the job ads as condor_submit makes them.")
@json_option
@pass_session
def submit(
    session: Session,
    file: Path,
    more: tuple[str, ...],
    plan_path: Path | None,
    workflow: str | None,
    ttl_seconds: float | None,
    wait_server_seconds: float | None,
    token_ttl_seconds: float,
    token_dir: Path | None,
    pyz: Path | None,
    schedd_name: str | None,
    force: bool,
    dry_run: bool,
    wants_json: bool,
) -> None:
    """Submit FILE, an ordinary submit file, with the wrapper in front of its executable.

    condor_submit reads the file; htlease only adds to its jobs. With the server away nothing is
    submitted. After `--` come submit commands that take the place of those in the file, and then
    options of condor_submit: `-- request_memory=2GB -spool`.
    """
    submission_id = secrets.token_hex(8)
    now = time.time()
    state = (token_dir or state_directory(os.environ)).absolute()
    text = with_includes(_read(file), _included)
    overrides, options = _split(more)
    plan_file = None if plan_path is None else read_plan_file(plan_path)
    lines = "\n".join((text, *overrides))
    workflow = own_workflow(lines) or workflow or default_workflow(file.stem, now, submission_id)
    is_interactive = any(re.match("-i(n|$)", option) for option in options)
    keys = None if options else foreseen_keys(text, as_commands(overrides), workflow)
    if keys is not None:
        check_distinct(keys)
    tokens = TokenFiles.of(state, submission_id, now + token_ttl_seconds)
    wrapper = find_pyz(pyz)
    additions = Additions(
        pyz=wrapper if dry_run else kept_pyz(wrapper, state),
        server_url=session.connection().url,
        workflow=workflow,
        token_path=tokens.path_in_submit_file(keys is None),
        submit_directory=Path.cwd(),
        submission_id=submission_id,
        plan_path=None if plan_path is None else plan_path.absolute(),
        plan_has_commands=plan_file is not None and bool(plan_file.commands),
        ttl_seconds=None if ttl_seconds is None else check_ttl(ttl_seconds),
        wait_server_seconds=wait_server_seconds,
        on_wall_time=plan_file.after_wall_time if plan_file else None,
        should_transfer_default=schedd.should_transfer_default(),
        is_interactive=is_interactive,
    )
    appended_options = [word for line in overrides for word in ("-append", line)]
    whole_options = (*appended_options, *_at(schedd_name), *options)
    if dry_run:
        condor_submit.print_dry_run(file, appended(additions), whole_options)
        return
    server = session.server()
    remove_expired(state, now, functools.cache(_submissions_at))
    submission = Submission(
        submission_id,
        file,
        appended(additions),
        whole_options,
        workflow,
        keys,
        plan_file.plan if plan_file else None,
        tokens,
        token_ttl_seconds,
        schedd_name,
        force,
        is_interactive,
    )
    result = carry_out(submission, server, _say)
    if is_loopback(urlsplit(server.url).hostname or ""):
        _say(f"jobs on other machines cannot reach {server.url}; see `htlease doctor`")
    _print(result, workflow, wants_json)


def _print(result: Submitted, workflow: str, wants_json: bool) -> None:
    jobs = result.jobs
    if wants_json:
        document = {
            "cluster": min(result.job_counts, default=None),
            "job_counts": {str(cluster): count for cluster, count in result.job_counts.items()},
            "workflow": workflow,
            "jobs": [
                {"proc": job.proc, "global_job_id": job.global_job_id, "subjob": job.key}
                for job in jobs
            ],
        }
        click.echo(as_json(document))
        return
    for cluster, count in result.job_counts.items():
        click.echo(f"{count} job(s) submitted to cluster {cluster}.")
    if jobs:
        rows = [(f"{job.cluster}.{job.proc}", job.key) for job in jobs[:_JOBS_SHOWN]]
        print_table(Table(("JOB", "SUBJOB"), rows))
    if sum(result.job_counts.values()) > min(len(jobs), _JOBS_SHOWN):
        click.echo(f"... and more: `htlease list {workflow}`")


def _say(text: str) -> None:
    click.echo(f"htlease: {text}", err=True)


def _at(schedd_name: str | None) -> tuple[str, ...]:
    return () if schedd_name is None else ("-name", schedd_name)


def _submissions_at(schedd_name: str | None) -> set[str] | None:
    """Return the submissions that a schedd has jobs of; None where it does not say."""
    mark = "HTLeaseSubmission"
    try:
        ads = read_jobs(f"{mark} isnt undefined", (mark,), schedd_name)
    except HTLeaseError:
        return None
    return {str(ad.get(mark)) for ad in ads}


def default_workflow(stem: str, now: float, submission_id: str) -> str:
    """Return a workflow's name made of file name, time and chance: `sim-20261121-0345-1f2e`."""
    moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    name = _NOT_IN_NAMES.sub("-", stem)[: NAME_LENGTH_MAX // 2]
    return f"{name}-{moment:%Y%m%d-%H%M}-{submission_id[:4]}"


def _read(file: Path) -> str:
    """Return the text to be looked at; only HTCondor knows its encoding, if it has one."""
    try:
        return file.read_bytes().decode("latin-1")
    except OSError as error:
        raise BadConfig(f"submit file {file}: {error.strerror}") from None


def _included(name: str) -> str | None:
    """Return the lines of an included file; condor_submit says what is wrong with it."""
    try:
        return Path(name).read_bytes().decode("latin-1")
    except OSError:
        return None


def _split(more: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return submit commands, and from the first `-` on options of condor_submit."""
    count = next((at for at, word in enumerate(more) if word.startswith("-")), len(more))
    for command in more[:count]:
        name, equals, _ = command.partition("=")
        if not (equals and name.strip()):
            raise InvalidField("override", f"{command!r} is not NAME=VALUE")
    for option in more[count:]:
        if re.fullmatch("-(?:n|na|nam|name|r|re|rem|remo|remot|remote|p|po|poo|pool)", option):
            raise InvalidField(option, "goes to another schedd; name it with --schedd")
        if re.match("-d(?:r|u)", option):
            raise InvalidField(option, "submits nothing; use --dry-run of htlease")
    return more[:count], more[count:]
