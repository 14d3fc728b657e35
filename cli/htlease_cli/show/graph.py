"""`htlease graph`: state diagrams from the tables in the code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click

from htlease.config.diagram import LIFECYCLE, diagram_of, dot, mermaid, refresh
from htlease.errors import BadConfig


@click.command()
@click.argument("name", default=LIFECYCLE, metavar=f"[{LIFECYCLE}|PROFILE[:FLOW]]")
@click.option("--full", is_flag=True, help="Every state, failure and cancellation included.")
@click.option(
    "form",
    "--format",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
)
@click.option(
    "documents",
    "--write",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Instead, draw the generated diagrams in this Markdown file anew.",
)
def graph(name: str, full: bool, form: str, documents: tuple[Path, ...]) -> None:
    """Draw the states of a subjob, or of a profile such as `cts`.

    Plain drawings show the few states of a good day, --full ones everything.
    """
    if documents:
        for document in documents:
            _write(document)
        return
    diagram = diagram_of(name, full)
    if form == "mermaid":
        click.echo(mermaid(diagram), nl=False)
    elif form == "dot":
        click.echo(dot(diagram), nl=False)
    else:
        click.echo(_svg(dot(diagram)), nl=False)


def _write(document: Path) -> None:
    try:
        before = document.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadConfig(f"{document} is not UTF-8 text") from None
    after = refresh(before)
    if after != before:
        document.write_text(after)
    click.echo(f"{document}: {'drawn anew' if after != before else 'unchanged'}")


def _svg(source: str) -> str:
    program = shutil.which("dot")
    if program is None:
        raise BadConfig(
            "svg needs the program `dot` of Graphviz, which is not installed; install the package "
            "graphviz, or use --format mermaid"
        )
    done = subprocess.run([program, "-Tsvg"], input=source, capture_output=True, text=True)
    if done.returncode != 0:
        raise BadConfig(f"{program} could not draw this: {done.stderr.strip()}")
    return done.stdout
