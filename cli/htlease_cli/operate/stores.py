"""`htlease store`: copies, checks and moves of a lease server's store, where the store is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htlease.client.client import LeaseServer
from htlease.client.connection import state_directory
from htlease.errors import BadConfig, HTLeaseError
from htlease_cli.parameters import DURATION
from htlease_cli.session import pass_server

if TYPE_CHECKING:
    from htlease_server.tools.snapshot import StoreSnapshot

_FILE = click.Path(path_type=Path)
_SHOWN_MAX = 50
#: Between two steps of a trim: the server has four fifths of the time for others.
_PAUSE_PARTS = 4
_PAUSE_SECONDS = 0.02
_AGE_MIN_SECONDS = 86400.0


class CheckFailed(HTLeaseError):
    """The store is not as it should be."""


def _store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        "url",
        metavar="URL",
        help="As `htlease serve` has it [htlease.sqlite3 in $XDG_STATE_HOME/htlease].",
    )(command)


def _url(url: str | None) -> str:
    return url or f"sqlite:///{state_directory(os.environ) / 'htlease.sqlite3'}"


@contextmanager
def _packages() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BadConfig(
            f"the server's packages are not installed ({error.name}); install them with "
            "`pip install 'htlease[server]'`"
        ) from None


@contextmanager
def _snapshot(url: str | None) -> Iterator[StoreSnapshot]:
    with _packages():
        from htlease_server.tools.open_store import open_snapshot
    snapshot = open_snapshot(_url(url))
    try:
        yield snapshot
    finally:
        snapshot.close()


@click.group()
def store() -> None:
    """Copy, check, move and trim a lease server's store."""


@store.command()
@click.argument("file", type=_FILE)
@_store_option
def backup(file: Path, url: str | None) -> None:
    """Copy the store to FILE as it is now; the server goes on.

    The copy is a store itself. Bring it back with `htlease store restore`, never by copying it into
    place: it does not know the attempts since. SQLite only.
    """
    with _packages():
        from htlease_server.tools.open_store import sqlite_path
        from htlease_server.tools.sqlite_backup import back_up
    started = time.monotonic()
    size_bytes = back_up(sqlite_path(_url(url), "backup"), file)
    seconds = time.monotonic() - started
    click.echo(f"{file}: {size_bytes / 1e6:.1f} MB in {seconds:.1f} s")


@store.command()
@click.argument("file", type=_FILE)
@_store_option
def restore(file: Path, url: str | None) -> None:
    """Put a backup in the store's place, and shut out all that it does not know.

    Stop the server first. What was done since the backup is forgotten, also that a `once` phase is
    complete; so hold the jobs that run, restore, start the server, and release them. No attempt of
    before can write: every lease is ended, and all fences from here on are above any that was
    ever issued. What was there is kept beside it. SQLite only.
    """
    with _packages():
        from htlease_server.tools.open_store import sqlite_path
        from htlease_server.tools.sqlite_backup import restore as put_back
    _say_fenced_off(put_back(file, sqlite_path(_url(url), "restore")))


@store.command("fence-off")
@_store_option
@click.option("--reason", metavar="TEXT", default="restored", help="Kept in the histories.")
def fence_off(url: str | None, reason: str) -> None:
    """Shut out every attempt that the store knows or may have forgotten.

    For a store that came back by other means than `htlease store restore`: a dump, a snapshot of a
    disk, recovery to a point in time. Stop all servers over it first.
    """
    with _packages():
        from htlease_server.tools.open_store import fence_off_store
    _say_fenced_off(fence_off_store(_url(url), reason))


@store.command()
@_store_option
def moved(url: str | None) -> None:
    """Say that the store is where it is now, and nowhere else: a server may start on this copy.

    A server refuses a store that is another file, or on another machine, than what was served
    last. Only if the server there was stopped before the copy was made, and never starts again:
    leases and fences go on as they were. In doubt run `htlease store fence-off`, after which
    nothing can be held twice.
    """
    with _packages():
        from htlease_server.tools.open_store import accept_place
    accept_place(_url(url))
    click.echo(f"{_url(url)}: the next server may start here.")


def _say_fenced_off(floor_and_ended: tuple[int, int]) -> None:
    floor, ended = floor_and_ended
    click.echo(f"{ended} leases were ended; every fence from here on is above {floor}.")


@store.command()
@_store_option
@click.option("--quick", is_flag=True, help="Do not read every page of the file.")
def check(url: str | None, quick: bool) -> None:
    """Look whether the store holds together and its history says what it says.

    Reads everything, beside a running server too; 100,000 subjobs take some ten seconds. Ends with
    1 when something is wrong, and says what to do.
    """
    with _packages():
        from htlease_server.tools.check import Checked
        from htlease_server.tools.check import check as findings_of
    checked, found = Checked(), 0
    with _snapshot(url) as snapshot:
        for finding in findings_of(snapshot, checked, quick):
            found += 1
            if found <= _SHOWN_MAX:
                click.echo(f"{finding.where}: {finding.what}; {finding.advice}")
        click.echo(
            f"{snapshot.name}: {checked.workflows} workflows, {checked.subjobs} subjobs,"
            f" {checked.events} events looked at, {found or 'nothing'} wrong"
        )
    if found:
        raise CheckFailed(f"{found} things are wrong with this store")


@store.command()
@_store_option
def migrate(url: str | None) -> None:
    """Bring the store to the schema of this htlease, as a server does when it starts."""
    with _packages():
        from htlease_server.tools.open_store import migrate as bring_up
    click.echo(f"{_url(url)}: {bring_up(_url(url))}")


@store.command()
@click.argument("file", type=_FILE)
@_store_option
def export(file: Path, url: str | None) -> None:
    """Write everything to FILE, to be imported into another store; stop the server first.

    JSON lines, mode 0600. Start no server over the old store again once the new one has served.
    """
    with _packages():
        from htlease_server.tools.archive import write_archive
        from htlease_server.tools.open_store import exclusive_lock
    with exclusive_lock(_url(url)), _snapshot(url) as snapshot:
        tail = write_archive(snapshot, file)
    click.echo(f"{file}: {tail.workflows} workflows, {tail.subjobs} subjobs, {tail.events} events")


@store.command("import")
@click.argument("file", type=_FILE)
@_store_option
def import_command(file: Path, url: str | None) -> None:
    """Fill an empty store from FILE; leases, fences and histories go on as they were.

    Only for what was exported last, from a server that has not run since; else run
    `htlease store fence-off` before a server starts.
    """
    with _packages():
        from htlease_server.tools.open_store import fill
    tail = fill(_url(url), file)
    click.echo(
        f"{_url(url)}: {tail.workflows} workflows, {tail.subjobs} subjobs, {tail.events} events"
    )


@store.command()
@click.option(
    "--older",
    "older_than_seconds",
    required=True,
    type=DURATION,
    help="How long nothing has changed in a workflow, e.g. 30d; a day at least.",
)
@click.option("--dry-run", is_flag=True, help="Delete nothing; list what would go.")
@pass_server
def trim(server: LeaseServer, older_than_seconds: float, dry_run: bool) -> None:
    """Delete the subjobs of workflows that have been closed for long, with their histories.

    The running server does it, in steps of some ten milliseconds with pauses between. Workflows
    with an open subjob are left as they are; of the others name, owner, plan and labels stay. Can
    be stopped and begun again at any time.
    """
    if older_than_seconds < _AGE_MIN_SECONDS:
        raise click.BadParameter("a day (1d) is the least", param_hint="--older")
    workflows: dict[str, int] = {}
    after: int | None = 0
    while after is not None:
        started = time.monotonic()
        step = server.trim(older_than_seconds, after, dry_run)
        for found in step["workflows"]:
            name = found["workflow"]
            workflows[name] = workflows.get(name, 0) + found["subjobs"]
        after = step["next"]
        if not dry_run and after is not None:
            time.sleep(max(_PAUSE_SECONDS, _PAUSE_PARTS * (time.monotonic() - started)))
    if dry_run:
        for name, subjobs in workflows.items():
            click.echo(f"{name}: {subjobs} subjobs")
    subjobs = sum(workflows.values())
    gone = "would be deleted" if dry_run else "were deleted"
    click.echo(f"{subjobs} subjobs of {len(workflows)} workflows {gone}.")
