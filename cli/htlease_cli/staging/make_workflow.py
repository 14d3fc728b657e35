"""Makes a staging workflow beside its file: identity, token, DAG and submit files."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from htlease.client.client import LeaseServer
from htlease.errors import BadConfig
from htlease.rules.attempt import SubjobKey
from htlease_cli.pyz import find_pyz
from htlease_cli.staging.clean_up_job import Lease, lease_of, local_program
from htlease_cli.staging.compute_node import script_files, structure
from htlease_cli.staging.dag_text import (
    MARK,
    Layout,
    dag_text,
    dagman_config_text,
    has_clean_up,
    watcher_submit_text,
)
from htlease_dagman.staging.backends.registry import open_backend
from htlease_dagman.staging.engine import Adopted
from htlease_dagman.staging.staging_file import StagingFile
from htlease_dagman.staging.staging_settings import (
    WorkflowSettings,
    read_secret,
    read_settings,
    settings_path,
    write_settings,
)

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._~@:=+,-]+")
PROGRAM = "htlease-dag"


@dataclass(frozen=True)
class Made:
    """What `htlease stage init` has written."""

    workflow: str
    dag: Path
    is_new: bool


def make(
    file: StagingFile,
    server: LeaseServer,
    *,
    program: Path,
    pyz: Path | None,
    adopted: dict[str, Adopted],
    token_ttl_seconds: float,
    wants_check: bool,
) -> Made:
    """Write everything that `condor_submit_dag` needs; raises BadConfig naming file and line.

    Nothing is written before all that can be checked has been. Made again, a workflow keeps its
    name, and with it all that the server knows of it.
    """
    if wants_check:
        check_places(file)
    path = settings_path(file.path)
    before = read_settings(path) if path.exists() else None
    if before and file.workflow not in (None, before.workflow):
        raise file.toml.wrong(
            "", "workflow", f"this directory has workflow {before.workflow}; remove {path} first"
        )
    stem = _NOT_IN_NAMES.sub("-", file.path.stem)
    workflow = file.workflow or (before.workflow if before else f"{stem}-{secrets.token_hex(4)}")
    layout = Layout(file, workflow, program)
    token_file = file.path.with_suffix(".token")
    text = dag_text(layout)
    lease = _lease(layout, pyz, server.url)
    texts = script_files(layout, server.url, token_file, text, lease)
    texts |= {layout.dag: text, layout.dagman_config: dagman_config_text(layout)}
    if lease is not None:
        texts[lease.script] = lease.text
    for node in file.transfers:
        SubjobKey(workflow, node)
        texts[layout.watcher_submit_file(node)] = watcher_submit_text(layout, node)
    for other in texts:
        is_ours = other == layout.names.settings
        if not is_ours and other.exists() and not _begins_with_mark(other):
            raise BadConfig(f"{other} is not one that this command wrote; move it away first")
    server.put_workflow(
        workflow, {"labels": {"dag": layout.dag.name}, "structure": structure(layout, text)}
    )
    token = server.mint_token(workflow, None, token_ttl_seconds)["token"]
    _write_secret(token_file, token)
    settings = before or WorkflowSettings(workflow, server.url, token_file)
    settings = replace(settings, server=server.url, adopted={**settings.adopted, **adopted})
    write_settings(path, settings)
    for text_path, content in texts.items():
        text_path.write_text(content, encoding="utf-8")
    if lease is not None:
        lease.script.chmod(0o755)
    return Made(workflow, layout.dag, before is None)


def _lease(layout: Layout, pyz: Path | None, server: str) -> Lease | None:
    if not has_clean_up(layout.file):
        return None
    assert layout.file.clean_up is not None
    program = local_program(layout.file.clean_up)
    return None if program is None else lease_of(layout, program, find_pyz(pyz), server)


def _begins_with_mark(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return text.startswith((MARK, f"#!/bin/sh\n{MARK}"))


def check_places(file: StagingFile) -> None:
    """Ask the service whether each place can be used; raises BadConfig naming file and line."""
    backend = open_backend(file)
    try:
        made = {transfer.destination for transfer in file.transfers.values()}
        used = made | {transfer.source for transfer in file.transfers.values()}
        for place in sorted(used, key=lambda place: place.name):
            # A transfer makes its destination, from which a later one may take.
            problem = backend.check(place, has_to_exist=place not in made)
            if problem:
                raise file.toml.wrong(f"places.{place.name}", "", problem)
    finally:
        backend.close()


def find_program() -> Path:
    """Return the installed `htlease-dag`; raises BadConfig."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise BadConfig(f"{PROGRAM} is not on PATH; install htlease here, or name it: --program")
    return Path(found)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    read_secret(path, "token file")
