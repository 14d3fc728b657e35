"""`htlease token renew`: fresh token files for jobs that are still in the queue."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from htlease.client.client import LeaseServer
from htlease.condor.bindings_process import read_jobs
from htlease.condor.queued_ad import HELD, job_number
from htlease.condor.schedd import Plain, ScheddUnavailable
from htlease.errors import InvalidField, Refused
from htlease.rules.attempt import SubjobKey
from htlease_cli.parameters import DURATION, WORKFLOW
from htlease_cli.session import pass_server
from htlease_cli.submit.token_files import FILE_NAME, TokenFiles, cluster_of
from htlease_cli.tables import Table, moment_text, print_table

_ATTRIBUTES = (
    *("ClusterId", "ProcId", "GlobalJobId", "JobStatus", "HoldReason", "StageInFinish"),
    *("HTLeaseKey", "HTLeaseTokenFile"),
)


@dataclass(frozen=True)
class QueuedToken:
    """A token file and the jobs in the queue that take it along."""

    path: Path
    workflow: str
    #: The one subjob that it is for; None: it is shared.
    subjob: str | None
    #: Of a shared one, as `cluster_of` returns it.
    cluster: str | None
    jobs: tuple[str, ...]

    @property
    def files(self) -> TokenFiles:
        """The files of its submission."""
        place = self.path.parent
        return TokenFiles(place if self.subjob is None else place.parent)


def queued_tokens(ads: Sequence[dict[str, Plain]]) -> Iterator[QueuedToken]:
    """Yield the token files of queued jobs, by the jobs' ads; spooled copies are none."""
    by_path: dict[Path, list[tuple[dict[str, Plain], SubjobKey]]] = {}
    for ad in ads:
        path = Path(str(ad.get("HTLeaseTokenFile", "")))
        if path.name != FILE_NAME or not path.is_absolute() or is_spooled(ad):
            continue
        try:
            key = SubjobKey.parse(str(ad.get("HTLeaseKey")))
        except InvalidField:
            continue
        by_path.setdefault(path, []).append((ad, key))
    for path, users in by_path.items():
        (first, key), jobs = users[0], tuple(job_number(ad) for ad, _ in users)
        if len(users) == 1 and path.parent.name == str(first["ProcId"]):
            yield QueuedToken(path, key.workflow, key.subjob, None, jobs)
            continue
        cluster = cluster_of(str(ad.get("GlobalJobId", "")) for ad, _ in users)
        yield QueuedToken(path, key.workflow, None, cluster, jobs)


def is_spooled(ad: dict[str, Plain]) -> bool:
    """Tell whether the schedd has a copy of the job's files, which nobody can change."""
    return bool(ad.get("StageInFinish"))


@click.command()
@click.argument("workflow", type=WORKFLOW, required=False)
@click.option(
    "--ttl",
    "ttl_seconds",
    type=DURATION,
    default="7d",
    show_default=True,
    help="How long the new ones are good for.",
)
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd that has the jobs.")
@pass_server
def renew(
    server: LeaseServer, workflow: str | None, ttl_seconds: float, schedd_name: str | None
) -> None:
    """Write new token files for your jobs that `htlease submit` queued and that are still there.

    Of one WORKFLOW, or of all. A job takes the new file along when it starts next; one that is
    held for its old token then needs condor_release.
    """
    owner = pwd.getpwuid(os.geteuid()).pw_name
    constraint = f'HTLeaseTokenFile isnt undefined && Owner == "{owner}"'
    try:
        ads = read_jobs(constraint, _ATTRIBUTES, schedd_name)
    except ScheddUnavailable as error:
        raise ScheddUnavailable(
            f"{error}; run this on the access point that has the jobs, or name it with --schedd"
        ) from None
    if workflow is not None:
        ads = [ad for ad in ads if str(ad.get("HTLeaseKey")).startswith(f"{workflow}/")]
    rows = []
    for queued in queued_tokens(ads):
        expires_at = _renew(server, queued, ttl_seconds)
        what = f"{queued.workflow}/{queued.subjob or '*'}"
        rows.append((" ".join(queued.jobs), what, moment_text(expires_at)))
    if rows:
        print_table(Table(("JOBS", "TOKEN FOR", "UNTIL (UTC)"), rows))
    spooled = [job_number(ad) for ad in ads if is_spooled(ad)]
    if spooled:
        raise Refused(
            "spooled",
            f"{' '.join(spooled)} took a copy of the token into the spool, which cannot be "
            "renewed; `condor_rm` and submit again with a longer --token-ttl",
        )
    if not rows:
        where = f" of {workflow}" if workflow else ""
        raise Refused("not-found", f"no job{where} in the queue has a token file; see `condor_q`")
    held = [job_number(ad) for ad in ads if is_held_by_us(ad)]
    if held:
        click.echo(f"\nNow release what is held: condor_release {' '.join(held)}")


def is_held_by_us(ad: dict[str, Plain]) -> bool:
    """Tell whether a job is held for want of a lease."""
    return ad.get("JobStatus") == HELD and str(ad.get("HoldReason", "")).startswith("htlease:")


def _renew(server: LeaseServer, queued: QueuedToken, ttl_seconds: float) -> str:
    """Make a token and put it in the place of the old one; return until when it is good."""
    if queued.subjob is not None:
        minted = server.mint_token(queued.workflow, queued.subjob, ttl_seconds)
        queued.files.write(int(queued.path.parent.name), minted["token"])
    else:
        minted = server.mint_token(
            queued.workflow, None, ttl_seconds, role="job", global_job_id=queued.cluster
        )
        queued.files.write(None, minted["token"])
    return str(minted["expires_at"])
