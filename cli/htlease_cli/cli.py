"""The `htlease` command: which words it knows and how its errors reach a person."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from htlease.errors import BadConfig, HTLeaseError, InvalidField, Refused, ServerUnavailable
from htlease_cli import installed_version
from htlease_cli.dag.dag_commands import dag
from htlease_cli.doctor.doctor_command import doctor
from htlease_cli.install.hooks_command import hooks
from htlease_cli.logs.logs_command import logs
from htlease_cli.operate.agent_command import agent
from htlease_cli.operate.close import cancel, commit, settle
from htlease_cli.operate.flags import flag
from htlease_cli.operate.maintenance import maintenance
from htlease_cli.operate.plans import plan
from htlease_cli.operate.pools import pool
from htlease_cli.operate.scenario_command import scenario
from htlease_cli.operate.serve import serve
from htlease_cli.operate.stores import store
from htlease_cli.operate.token_renewal import renew
from htlease_cli.operate.tokens import audit, token
from htlease_cli.operate.workflows import workflow
from htlease_cli.session import Session, connection_options
from htlease_cli.show.graph import graph
from htlease_cli.show.show_commands import explain_command, find, history, list_command, show
from htlease_cli.staging.staging_command import stage
from htlease_cli.submit.submit_command import submit

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_BROKEN = 70
EXIT_TRY_LATER = 75
EXIT_CONFIGURATION = 78

#: What to do about a refusal whose own text does not say it.
_NEXT_STEP = {
    "unauthorized": "name the file of yours with BEARER_TOKEN_FILE; who runs the server"
    " (--admin-token-file) makes one: `htlease token mint --role submitter --name YOU`",
    "forbidden": "use one that is, see `htlease token mint --help`, or the admin token",
    "not-found": "`htlease list` shows the workflows",
    "unknown-subjob": "`htlease list` shows the workflows, `htlease list WORKFLOW` their subjobs",
}
#: How a person gives what a body on the wire has under this name.
_OPTION_OF = {
    "global_job_id": "--job",
    "job_starts": "--start",
    "name": "--name",
    "role": "--role",
    "ttl_seconds": "--ttl",
    "workflows": "--workflows",
}
#: Set, it shows where a mistake of our own is.
_TRACEBACK = "HTLEASE_TRACEBACK"
_CONFIGURATION_CODES = ("unauthorized", "forbidden")


class SectionedGroup(click.Group):
    """A group whose help shows its commands under headings."""

    sections: dict[str, list[str]]

    def add_section(self, heading: str, commands: Sequence[click.Command]) -> None:
        """Add commands under a heading."""
        self.sections = {**getattr(self, "sections", {}), heading: [c.name or "" for c in commands]}
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the headings in the order in which they were added."""
        for heading, names in self.sections.items():
            with formatter.section(heading):
                commands = [(name, self.commands[name]) for name in names]
                formatter.write_dl(
                    [(name, command.get_short_help_str(200)) for name, command in commands]
                )


@click.group(cls=SectionedGroup)
@click.version_option(installed_version() or "unknown", prog_name="htlease")
@connection_options
@click.pass_context
def htlease(ctx: click.Context, url: str | None, admin_token_file: Path | None) -> None:
    """Leases for HTCondor jobs: a restart goes on in its own phase, a zombie writes nothing."""
    ctx.obj = Session(url, admin_token_file)


assert isinstance(htlease, SectionedGroup)
token.add_command(renew)
htlease.add_section(
    "Look", [list_command, show, history, explain_command, logs, find, graph, audit]
)
htlease.add_section("Act", [submit, plan, dag, stage, cancel, commit, settle, flag, maintenance])
htlease.add_section("Set up", [serve, store, agent, hooks, doctor, token, workflow, pool, scenario])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 refused, 2 usage, 75 server away, 78 configuration."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal of another encoding cannot show is shown escaped.
            stream.reconfigure(errors="backslashreplace")
    try:
        htlease.main(args=argv, prog_name="htlease", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        _say(usage_text(error))
        sys.exit(EXIT_USAGE)
    except click.Abort:
        sys.exit(130)
    except HTLeaseError as error:
        _say(error_text(error))
        sys.exit(exit_code_of(error))
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        _say(f"{name}{error.strerror or error}.")
        sys.exit(EXIT_CONFIGURATION)
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        _say(f"{type(error).__name__}: {error}. This is a mistake in htlease; {_TRACEBACK}=1 shows")
        sys.exit(EXIT_BROKEN)


def _say(text: str) -> None:
    """Print the one line that every failure comes to."""
    click.echo(f"htlease: {' '.join(text.split())}", err=True)


def usage_text(error: click.ClickException) -> str:
    """Return what is wrong with a command line as one sentence, and where to look."""
    text = error.format_message().strip().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return f"{text}."
    return f"{text}; `{context.command_path} --help` shows how."


def error_text(error: HTLeaseError) -> str:
    """Return an error as a sentence that ends with what to do next."""
    text = error.detail if isinstance(error, Refused) else str(error)
    field = error.field if isinstance(error, (Refused, InvalidField)) else None
    if field in _OPTION_OF:
        text = re.sub(rf"^{field}\b", _OPTION_OF[field], text)
    # What a command of ours did not find, it words itself.
    is_the_servers = isinstance(error, Refused) and (error.status or error.code != "not-found")
    if isinstance(error, Refused) and is_the_servers and error.code in _NEXT_STEP:
        text += f"; {_NEXT_STEP[error.code]}"
    return text if text.endswith((".", "?")) else f"{text}."


def exit_code_of(error: HTLeaseError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, ServerUnavailable):
        return EXIT_TRY_LATER
    if isinstance(error, BadConfig):
        return EXIT_CONFIGURATION
    if isinstance(error, Refused) and error.code in _CONFIGURATION_CODES:
        return EXIT_CONFIGURATION
    if isinstance(error, InvalidField):
        return EXIT_CONFIGURATION
    return EXIT_REFUSED


if __name__ == "__main__":
    main()
