"""`htlease hooks install`, `uninstall` and `status`: the words of the command."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import click

from htlease.condor.condor_config import CondorConfig, find_config
from htlease.errors import BadConfig
from htlease_cli import installed_version
from htlease_cli.doctor.agent_state import agent_state
from htlease_cli.doctor.checks import OK, PROBLEM, WARNING, Check
from htlease_cli.doctor.hook_checks import hook_checks
from htlease_cli.doctor.hook_facts import hook_facts
from htlease_cli.doctor.hook_macros import CHECKED, check_setting, macro_checks
from htlease_cli.file_install import PYZ_LINK, placed_links
from htlease_cli.install.installation import (
    Places,
    check_own,
    chosen_settings,
    describe,
    difference,
    hook_directory,
    install,
    installed_file,
    keyword_to_chain,
    new_text,
    places,
    uninstall,
    usual_hook_directory,
)
from htlease_cli.install.roles import FILES, read_role
from htlease_cli.pyz import find_pyz
from htlease_cli.tables import Table, print_table

_ROLE = click.option(
    "--role", type=click.Choice(list(FILES)), required=True, help="What this machine is to be."
)
_PREFIX = click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/"),
    show_default=True,
    help="Root of an image of another machine.",
)
_FORCE = click.option("--force", is_flag=True, help="Also if the file was changed by hand.")
_RECONFIG = click.option("--reconfig", is_flag=True, help="Run condor_reconfig afterwards.")


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise click.BadParameter(f"{text!r} is not an absolute path")
    return text


@click.group()
def hooks() -> None:
    """Install htlease's hooks and configuration on this machine.

    Acts on the configuration that CONDOR_CONFIG names, or on the only one that is there.
    """


@hooks.command("install")
@_ROLE
@_PREFIX
@click.option("--url", metavar="URL", help="The lease server, as this machine reaches it.")
@click.option("--chain", metavar="KEYWORD", help="Your own starter hooks [found by itself].")
@click.option("--set", "more", metavar="NAME=VALUE", multiple=True, help="A macro of the file.")
@click.option(
    "--hook-dir",
    type=_absolute,
    metavar="DIR",
    help="Where the programs go [$(LIBEXEC)/htlease].",
)
@click.option("--pyz", type=click.Path(path_type=Path), help="The htlease-ep.pyz to install.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@_FORCE
@_RECONFIG
def install_command(
    role: str,
    prefix: Path,
    url: str | None,
    chain: str | None,
    more: tuple[str, ...],
    hook_dir: str | None,
    pyz: Path | None,
    dry_run: bool,
    force: bool,
    reconfig: bool,
) -> None:
    """Put programs and configuration in place.

    When HTCondor does not read the result as it should, all is left as it was.
    """
    config = find_config(os.environ, prefix)
    part = read_role(role)
    where = places(config, part, hook_dir or hook_directory(config))
    previous = installed_file(where.config_file)
    if previous and where.hook_dir != hook_directory(config):
        raise BadConfig(
            f"--hook-dir: the hooks are in {hook_directory(config)}; "
            "`htlease hooks uninstall` comes first"
        )
    if role == "ep" and chain is None:
        chain = keyword_to_chain(config)
    is_usual = where.hook_dir == usual_hook_directory(config)
    given = {
        "HTLEASE_URL": url,
        "HTLEASE_HOOK_DIR": None if is_usual else where.hook_dir,
        "HTLEASE_CHAIN": chain,
        **dict(map(_setting, more)),
    }
    settings = chosen_settings(previous, given)
    for name, value in settings.items():
        try:
            check_setting(name, value, part.macros)
        except BadConfig as error:
            if given.get(name) is not None:
                raise
            raise BadConfig(f"{error} (chosen before; `--set {name}=` takes it out)") from None
    text = new_text(part, installed_version() or "unknown", settings)
    content = find_pyz(pyz).read_bytes()
    _say_which(config)
    check_own(where, force)
    if dry_run:
        click.echo(f"would place {where.hook_path / PYZ_LINK}")
        for link, target in where.links.items():
            click.echo(f"would link  {where.hook_path / link} -> {target}")
        click.echo(difference(where, text) or f"{where.config_file} would stay as it is", nl=False)
        return
    install(config, part, where, content, text)
    click.echo(f"programs       {where.hook_path}: {PYZ_LINK}, {', '.join(where.links)}")
    click.echo(f"wrote          {where.config_file}")
    for check in _checks(config):
        if check.verdict != OK:
            click.echo(f"{check.verdict + ':':14} {check.finding}; {check.remedy}")
    _reconfigure(config, reconfig)


@hooks.command("uninstall")
@_ROLE
@_PREFIX
@_FORCE
@_RECONFIG
def uninstall_command(role: str, prefix: Path, force: bool, reconfig: bool) -> None:
    """Take away what install put there.

    What it replaced comes back byte by byte.
    """
    config = find_config(os.environ, prefix)
    part = read_role(role)
    where = places(config, part, hook_directory(config))
    _say_which(config)
    check_own(where, force)
    if not uninstall(where):
        raise BadConfig(f"{where.config_file} is not there: this is no {describe(part)} of htlease")
    click.echo(f"removed        {where.config_file}, and its links in {where.hook_path}")
    _reconfigure(config, reconfig)


@hooks.command("status")
@_PREFIX
@click.option("--pyz", type=click.Path(path_type=Path), help="Compare with this htlease-ep.pyz.")
def status_command(prefix: Path, pyz: Path | None) -> None:
    """Show what is installed, and what HTCondor makes of it.

    Exits 1 if there is a problem.
    """
    config = find_config(os.environ, prefix)
    _say_which(config)
    hook_dir = hook_directory(config)
    rows: list[Check] = []
    for role in FILES:
        try:
            part = read_role(role)
        except BadConfig:
            continue
        rows += _file_checks(places(config, part, hook_dir), describe(part))
    if not rows:
        click.echo("htlease        not installed; see `htlease hooks install --help`")
        return
    rows += _program_checks(config.below(hook_dir), find_pyz(pyz).read_bytes())
    values, version, faults = hook_facts(config)
    rows += hook_checks(values, version, faults, agent_state(config, values))
    rows += _macro_checks(config)
    print_table(
        Table(("", "WHAT", "FOUND"), [(row.verdict, row.name, row.finding) for row in rows])
    )
    for row in rows:
        if row.remedy:
            click.echo(f"\n{row.name}: {row.remedy}")
    if any(row.verdict == PROBLEM for row in rows):
        raise SystemExit(1)


def _file_checks(where: Places, what: str) -> list[Check]:
    if not where.config_file.exists():
        return []
    found = installed_file(where.config_file)
    if found is None:
        return [Check(what, OK, f"{where.config_file}, copied by hand")]
    state = "changed by hand since" if found.is_changed else "as installed"
    return [
        Check(what, OK, f"{where.config_file}, htlease {found.version}, {state}"),
        *(Check(name, OK, value) for name, value in found.settings.items()),
    ]


def _program_checks(directory: Path, pyz: bytes) -> list[Check]:
    installed = directory / PYZ_LINK
    if not installed.is_file():
        return [
            Check("programs", PROBLEM, f"{installed} is missing", "run `htlease hooks install`")
        ]
    links = ", ".join(placed_links(directory))
    if installed.read_bytes() == pyz:
        return [Check("programs", OK, f"{installed}, the one of this htlease; {links}")]
    return [
        Check(
            "programs",
            WARNING,
            f"{installed} is another one than this htlease has; {links}",
            "`htlease hooks install` brings them up to date",
        )
    ]


def _checks(config: CondorConfig) -> list[Check]:
    return [*hook_checks(*hook_facts(config)), *_macro_checks(config)]


def _macro_checks(config: CondorConfig) -> list[Check]:
    return macro_checks(config.values(tuple(CHECKED)), config.names("HTLEASE_"))


def _setting(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(HTLEASE_\w+)\s*=\s*([^\n]*?)\s*", text)
    if match is None:
        raise click.UsageError(f"--set {text!r} is not HTLEASE_NAME=VALUE")
    return match[1], match[2]


def _say_which(config: CondorConfig) -> None:
    version = ".".join(map(str, config.version()))
    click.echo(f"configuration  {config.main} (HTCondor {version})")


def _reconfigure(config: CondorConfig, is_wanted: bool) -> None:
    if config.root != Path("/"):
        return
    if not is_wanted:
        click.echo("Nothing changes until you run condor_reconfig (or give --reconfig).")
        return
    done = subprocess.run(
        ["condor_reconfig"],
        env={**os.environ, "CONDOR_CONFIG": str(config.main)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise BadConfig(f"all is in place, but condor_reconfig failed: {why}")
    click.echo("HTCondor has been told to read its configuration again.")
