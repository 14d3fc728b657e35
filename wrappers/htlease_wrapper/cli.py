"""The command line of htlease-ep.pyz: which sub-command, its options, its exit code."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from htlease.errors import BadConfig, HTLeaseError
from htlease.execution.process_start import at_start
from htlease.rules.plan import ON_WALL_TIME, RESTARTS, TAKEOVERS, seconds_from
from htlease_wrapper.console import Console
from htlease_wrapper.exit_status import BAD_CONFIG, NoLease, WrapperExit, internal_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from htlease_wrapper.settings import RunOptions

USAGE = """usage: htlease-ep.pyz run [options] [--] COMMAND...       run a job under its lease
       htlease-ep.pyz run --plan FILE [options]           run a plan of phases
       htlease-ep.pyz phase enter|complete|fail NAME      within a payload that manages its phases
       htlease-ep.pyz details FILE                        within a payload: save details
       htlease-ep.pyz compile FILE                        write a copy that starts faster
       htlease-ep.pyz version
       htlease-ep.pyz /FULL/PATH ARGUMENTS...             run a job as USER_JOB_WRAPPER
       htlease-ep.pyz ARGUMENTS...                        run a job of `htlease submit`
"""


def main(argv: Sequence[str]) -> int:
    """Run a command line and return the exit status; shows no traceback."""
    console = Console()
    try:
        from htlease_wrapper import wrapped_job

        environ = at_start().environ()
        job = wrapped_job.started_as_job(argv, environ)
        if job is not None:
            return _under_lease(wrapped_job.options_of(job, argv[1:]), environ, console)
        return _COMMANDS.get(argv[1] if len(argv) > 1 else "", _job)(argv[1:], console)
    except WrapperExit as leave:
        console.say(str(leave))
        return leave.exit_code
    except HTLeaseError as error:
        console.say(str(error))
        return BAD_CONFIG
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        console.say(internal_error(error))
        return BAD_CONFIG


def load(arguments: Sequence[str]) -> None:
    """Import what running a job takes, while a payload can still be run without it."""
    if arguments[:1] == ["run"] or not arguments or arguments[0] not in _COMMANDS:
        import htlease_wrapper.run  # noqa: F401


class _Parser(argparse.ArgumentParser):
    """Reports bad use as configuration errors, which exit with 78."""

    def __init__(self, prog: str) -> None:
        # Looking the terminal's width up costs as much as all the rest of the parsing.
        formatter = functools.partial(argparse.HelpFormatter, width=96)
        super().__init__(prog, allow_abbrev=False, formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        raise BadConfig(f"{message}; `{self.prog} --help` shows the options")


def _run(arguments: Sequence[str], console: Console) -> int:
    parser = _Parser("htlease-ep.pyz run")
    parser.add_argument("--server", metavar="URL", help="default: $HTLEASE_URL")
    parser.add_argument("--key", metavar="WORKFLOW/SUBJOB", help="default: $HTLEASE_KEY, the ad")
    parser.add_argument("--plan", metavar="FILE", help="phases and what each runs, TOML or JSON")
    parser.add_argument(
        "--profile", metavar="PROFILE[:FLOW]", help="a state machine that COMMAND walks itself"
    )
    parser.add_argument("--phase-name", metavar="NAME", help="the one phase without a plan [run]")
    parser.add_argument(
        "--restart", choices=RESTARTS, help="what a restart does to that phase [resume]"
    )
    parser.add_argument("--takeover", choices=TAKEOVERS, help="over the plan's [wait]")
    parser.add_argument(
        "--on-wall-time", choices=ON_WALL_TIME, help="over the plan's [next-attempt]"
    )
    for option, name, text in (
        ("--ttl", "ttl_seconds", "how long the lease lasts unrenewed [120]"),
        ("--wait-lease", "wait_lease_seconds", "wait so long for a live lease to end [600]"),
        ("--wait-server", "wait_server_seconds", "wait so long for the server [300]"),
        ("--wait-flag", "wait_flag_seconds", "wait so long for flags that phases need [86400]"),
        ("--kill-grace", "kill_grace_seconds", "between SIGTERM and SIGKILL [10]"),
        ("--wall-time", "wall_time_seconds", "over the plan's: end the payload in time for this"),
    ):
        parser.add_argument(option, dest=name, metavar="SECONDS", type=_seconds, help=text)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the payload and its arguments")
    given = vars(parser.parse_args(arguments[1:]))
    command = given.pop("command")
    if command[:1] == ["--"]:
        command = command[1:]

    from htlease_wrapper.settings import RunOptions

    return _under_lease(RunOptions(command=tuple(command), **given), at_start().environ(), console)


def _under_lease(options: RunOptions, environ: Mapping[str, str], console: Console) -> int:
    """Run a job under its lease, or untracked where limits leave no room for a wrapper."""
    _say_what_is_lost(console)

    from htlease_wrapper.limits import NoRoom, is_shortage
    from htlease_wrapper.run import run

    try:
        return run(options, environ, console)
    except NoLease as error:
        is_for_room = isinstance(error, NoRoom) or is_shortage(error.__cause__)
        has_policy = environ.get("HTLEASE_ON_NO_SERVER", "run") != "run"
        if not is_for_room or has_policy or options.names_phases or not options.command:
            raise
        why = error.why

    from htlease_wrapper.exec_payload import exec_payload

    console.say(f"{why}; the payload runs untracked, nothing of it is recorded")
    return exec_payload(options.command)


def _phase(arguments: Sequence[str], console: Console) -> int:
    parser = _Parser("htlease-ep.pyz phase")
    parser.add_argument("verb", choices=("enter", "complete", "fail"))
    parser.add_argument("name", help="a phase of the plan")
    parser.add_argument("--reason", help="why it failed")
    parser.add_argument("--exit-code", type=int, help="of what failed")
    parser.add_argument(
        "--artifact", action="append", default=[], metavar="NAME=VALUE", help="what complete made"
    )
    _add_wait_server(parser)
    given = parser.parse_args(arguments[1:])

    from htlease_wrapper import phase_command

    call = phase_command.open_call(at_start().environ(), console, given.wait_server_seconds)
    if given.verb == "enter":
        _print(call.enter(given.name) + "\n")
    elif given.verb == "complete":
        call.complete(given.name, phase_command.artifacts_from(given.artifact))
    else:
        call.fail(given.name, given.reason, given.exit_code)
    return 0


def _details(arguments: Sequence[str], console: Console) -> int:
    parser = _Parser("htlease-ep.pyz details")
    parser.add_argument("file", help="UTF-8 text of at most 64 KiB; `-` reads standard input")
    _add_wait_server(parser)
    given = parser.parse_args(arguments[1:])

    from htlease_wrapper import phase_command

    call = phase_command.open_call(at_start().environ(), console, given.wait_server_seconds)
    call.save_details(given.file)
    return 0


def _add_wait_server(parser: _Parser) -> None:
    parser.add_argument(
        "--wait-server",
        dest="wait_server_seconds",
        metavar="SECONDS",
        type=_seconds,
        default=300.0,
        help="wait so long for the server [300]",
    )


def _version(arguments: Sequence[str], console: Console) -> int:
    from htlease.version import VERSION

    _print(f"htlease-ep {VERSION}, Python {sys.version.split()[0]}\n")
    return 0


def _compile(arguments: Sequence[str], console: Console) -> int:
    parser = _Parser("htlease-ep.pyz compile")
    parser.add_argument("file", help="the copy, with bytecode for this Python")
    target = Path(parser.parse_args(arguments[1:]).file)

    from htlease_wrapper.bytecode import write_compiled

    write_compiled(Path(sys.argv[0]), target)
    return 0


def _help(arguments: Sequence[str], console: Console) -> int:
    _print(USAGE)
    return 0


def _job(arguments: Sequence[str], console: Console) -> int:
    from htlease_wrapper import site_wrapper

    if arguments and site_wrapper.is_job(arguments[0], at_start().environ()):
        _say_what_is_lost(console)
        return site_wrapper.run_job(arguments, at_start().environ(), console)
    named = f"{arguments[0]!r} is not a command" if arguments else "no command is given"
    raise BadConfig(f"{named}; the commands are run, phase, details, compile, version")


def _say_what_is_lost(console: Console) -> None:
    unknown = at_start().unknown
    if unknown:
        console.say(f"/proc cannot be read here, so {unknown} cannot be kept for the payload")


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _seconds(text: str) -> float:
    seconds = seconds_from(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


_COMMANDS: dict[str, Callable[[Sequence[str], Console], int]] = {
    "run": _run,
    "phase": _phase,
    "details": _details,
    "compile": _compile,
    "version": _version,
    "--version": _version,
    "help": _help,
    "--help": _help,
    "-h": _help,
}
