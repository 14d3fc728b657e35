"""`htlease dag rebuild`: make a DAG's files again from what `htlease workflow export` wrote."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import click

from htlease.errors import BadConfig
from htlease_cli.dag.instrument import write
from htlease_cli.dag.kept_files import REMOVED
from htlease_dagman.dagfile.include_file import Names
from htlease_dagman.dagfile.include_line import without_line
from htlease_dagman.scripts.dag_settings import VERSION


@click.command()
@click.argument("export", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--into",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A directory that is not there yet, or empty.",
)
def rebuild(export: Path, directory: Path) -> None:
    """Write the DAG and submit files that EXPORT holds, for the same workflow.

    Instrument the DAG there and submit it: what is complete on the server is skipped. Programs and
    data are not in an export; put them back yourself.
    """
    document = read_export(export)
    structure = document["workflow"]["structure"] or {}
    name, files = structure.get("dag"), structure.get("files", {})
    if not name or name not in files:
        raise BadConfig(f"{export} holds no DAG; instrument it again, then export")
    if directory.exists() and any(directory.iterdir()):
        raise BadConfig(f"{directory} is not empty; name a new directory")
    elsewhere = []
    for path, text in files.items():
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            elsewhere.append(path)
            continue
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = text.encode()
        write(target, without_line(content) if path == name else content)
    names = Names((directory / name).absolute())
    # What keeps a DAG's workflow; `instrument` writes it anew.
    settings = {
        "version": VERSION,
        "workflow": document["workflow"]["workflow"],
        "dag": str(names.dag),
    }
    write(names.settings, (json.dumps(settings, indent=1) + "\n").encode())
    _print_what_is_missing(structure, files, elsewhere)
    click.echo(
        f"{names.dag} is workflow {document['workflow']['workflow']} again; `htlease dag "
        f"instrument {name}` in {directory}, then condor_submit_dag, goes on from there."
    )


def _print_what_is_missing(
    structure: dict[str, Any], files: dict[str, str], elsewhere: list[str]
) -> None:
    for path, why in structure.get("left_out", {}).items():
        click.echo(f"not in the export: {path} ({why})")
    for path in elsewhere:
        click.echo(f"not written, since it lies elsewhere: {path}")
    for path, text in files.items():
        if REMOVED in text:
            click.echo(f"{path}: put secrets back where it says {REMOVED}")


def read_export(path: Path) -> dict[str, Any]:
    """Return what an export says; raises BadConfig."""
    try:
        document = json.loads(path.read_bytes())
        if document["export"] != 1:
            raise BadConfig(f"{path} was written by a newer htlease")
        document["workflow"]["workflow"]
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise BadConfig(f"{path} is not what `htlease workflow export` writes") from None
    else:
        return dict(document)
