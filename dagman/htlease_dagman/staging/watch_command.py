"""`htlease-dag watch`: the program of a staging node, as a job or as a PRE script of DAGMan.

    watch FILE NODE           watches until the transfer is over (a job in local universe)
    watch FILE NODE --short   watches for `short_seconds`, then exits 75 (a retried node)
    watch FILE NODE --once    looks once and exits 75 if it is not over (a PRE script with DEFER)
    watch FILE NODE --begin DAGID
                              the PRE script of a watcher's job: opens what failed in an earlier
                              submission of the DAG, and keeps closed what failed in this one

Exit codes: 0 the transfer is done; 75 not yet; 3 it failed, was cancelled, a later watcher has
taken it over, or the configuration is wrong: nothing that a retry of the node would mend. Anything
else is no answer: this program was cut off.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig, HTLeaseError, Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire import protocol
from htlease.wire.lease_client import LeaseClient
from htlease.wire.retry import Clock, send
from htlease.wire.transport import HttpTransport
from htlease_dagman.scripts.invocation import first_try
from htlease_dagman.staging.backends.registry import open_backend
from htlease_dagman.staging.engine import Engine
from htlease_dagman.staging.evidence import acquire_command
from htlease_dagman.staging.staging_file import STAGE_OUT, StagingFile, read_staging_file
from htlease_dagman.staging.staging_settings import (
    WorkflowSettings,
    read_secret,
    read_settings,
    settings_path,
)
from htlease_dagman.staging.transfer_record import read_record
from htlease_dagman.staging.watcher import DONE, FAILED, LATER, Stop, Watcher

#: EX_SOFTWARE of sysexits(3).
BROKEN = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Run a watcher and return its exit code; what it says goes to standard error."""
    parser = argparse.ArgumentParser(prog="htlease-dag watch")
    parser.add_argument("file", type=Path)
    parser.add_argument("node")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--short", action="store_true")
    how.add_argument("--once", action="store_true")
    how.add_argument("--begin", metavar="DAGID")
    options = parser.parse_args(argv)
    try:
        settings = read_settings(settings_path(options.file))
        if options.begin is not None:
            return begin(settings, options.node, first_try(os.environ, options.begin))
        file = read_staging_file(options.file, with_jobs=False)
        return watch(file, settings, options.node, is_short=options.short, is_once=options.once)
    except HTLeaseError as error:
        say(str(error))
        return FAILED
    except Exception as error:  # no memory, a full disk: no answer, so that RETRY goes on
        say(f"ended by {type(error).__name__}: {error}")
        return BROKEN


def watch(
    file: StagingFile,
    settings: WorkflowSettings,
    node: str,
    *,
    is_short: bool = False,
    is_once: bool = False,
    is_asked: bool = False,
) -> int:
    """Watch the transfer of a node; raises BadConfig, or Refused for a token that is no good.

    `is_asked`: a person wants to know how it stands, so that it is looked at once. Raises BadConfig
    then where there is nothing to look at: a watcher's first step would submit it.
    """
    if is_asked and node not in settings.adopted and not _has_begun(settings, node):
        raise BadConfig(
            f"{settings.workflow}/{node} has not been given to the transfer service yet; its DAG"
            " does that"
        )
    is_told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_told.set())

    def pause(seconds: float) -> None:
        if is_told.wait(seconds):
            raise Stop

    watching = file.watching
    subjob = SubjobKey(settings.workflow, node)
    looks_once = is_once or is_asked
    kind = "pre" if looks_once else "job"
    patience_seconds = watching.short_seconds if is_short else 0.0 if looks_once else None
    clock = Clock()
    engine = Engine(subjob, file.transfer(node), open_backend(file), watching.tasks_max)
    watcher = Watcher(
        connect=lambda: LeaseClient(_transport(settings), subjob, clock),
        engine=engine,
        command=acquire_command(os.environ, clock.new_id(), watching.ttl_seconds, kind),
        adopted=settings.adopted.get(node),
        notice=file.notice,
        poll_seconds=watching.poll_seconds,
        patience_seconds=patience_seconds,
        say=say,
        pause=pause,
        leaves_alone=file.is_left_alone and node == STAGE_OUT and not is_asked,
        clock=clock,
    )
    return watcher.run()


def begin(settings: WorkflowSettings, node: str, submission: str) -> int:
    """Announce one submission of the DAG to its node; return FAILED where that has failed already.

    Announced again, as for each retry and each start of DAGMan, a submission opens nothing.
    """
    subjob = SubjobKey(settings.workflow, node)
    client = LeaseClient(_transport(settings), subjob, Clock())
    try:
        client.call(m.Enroll(submission))
        outcome = (_document(settings, node) or {}).get("outcome")
    except ServerUnavailable as error:
        say(f"the lease server does not answer ({error}); asked again later")
        return LATER
    except Refused as refused:
        if refused.code != "subjob-closed":
            raise
        outcome = refused.outcome
    if outcome in (None, "complete"):
        return DONE  # what is complete its watcher sees at once
    say(f"{subjob} is {outcome}, and stays so in this submission of the DAG; submit it again")
    return FAILED


def _has_begun(settings: WorkflowSettings, node: str) -> bool:
    document = _document(settings, node)
    if not document:
        return False
    record = read_record(document["details"])
    return record.is_asked or record.external_id is not None or document["outcome"] is not None


def _document(settings: WorkflowSettings, node: str) -> dict[str, Any]:
    """Return what is on record of a node, empty where nothing is."""
    path = protocol.subjob_path(SubjobKey(settings.workflow, node))
    try:
        return send(_transport(settings), Clock(), "GET", path, None, 0.0)[0]
    except Refused as refused:
        if refused.code != "unknown-subjob":
            raise
        return {}


def say(text: str) -> None:
    """Print one line with the time."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _transport(settings: WorkflowSettings) -> HttpTransport:
    return HttpTransport(settings.server, read_secret(settings.token_file, "token file"))


if __name__ == "__main__":
    sys.exit(main())
