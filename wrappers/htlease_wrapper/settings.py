"""What `run` was asked to do: options, environment, plan file, and the relations between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from htlease.condor.job_ad import Ad
from htlease.errors import BadConfig, InvalidField
from htlease.rules.plan import TTL_DEFAULT_SECONDS, Plan, PlanFile, check_ttl
from htlease_wrapper.container import Container

WAIT_LEASE_SECONDS = 600.0
WAIT_SERVER_SECONDS = 300.0
#: A system that is looked after may be away for hours; what has begun is worth keeping till then.
WAIT_FLAG_SECONDS = 86400.0
KILL_GRACE_SECONDS = 10.0
#: An exchange must fit into a lease several times, or one lost packet would cost it.
EXCHANGE_PART = 1 / 4
EXCHANGE_MAX_SECONDS = 15.0


@dataclass(frozen=True)
class RunOptions:
    """The options of `run` as they were given; None where they were not."""

    server: str | None = None
    key: str | None = None
    plan: str | None = None
    profile: str | None = None
    phase_name: str | None = None
    restart: str | None = None
    takeover: str | None = None
    ttl_seconds: float | None = None
    wait_lease_seconds: float | None = None
    wait_server_seconds: float | None = None
    wait_flag_seconds: float | None = None
    kill_grace_seconds: float | None = None
    wall_time_seconds: float | None = None
    on_wall_time: str | None = None
    command: tuple[str, ...] = ()
    #: Whether the payload may begin without a lease where nothing speaks against it.
    may_run_untracked: bool = True
    #: What the command leads into, where a site's wrapper stands outside of it.
    container: Container | None = None

    @property
    def names_phases(self) -> bool:
        """Tell whether they say more of the job's phases than that there is a command."""
        return bool(self.plan or self.profile or self.phase_name or self.restart)


@dataclass(frozen=True)
class Settings:
    """Everything `run` needs to know before it looks at the job."""

    server: str
    #: As given by --key or HTLEASE_KEY.
    key: str | None
    plan: Plan
    #: Phase -> argv; empty when the payload manages its phases itself.
    commands: Mapping[str, tuple[str, ...]]
    #: The one command of a payload that manages its phases itself.
    command: tuple[str, ...]
    ttl_seconds: float
    wait_lease_seconds: float
    wait_server_seconds: float
    kill_grace_seconds: float
    #: From the wrapper's start on; the payload is killed then, and asked to end a grace before.
    wall_time_seconds: float | None = None
    #: Phase -> the same from the phase's start on.
    phase_wall_times: Mapping[str, float] = field(default_factory=dict)
    #: How long a phase may be held back by flags.
    wait_flag_seconds: float = WAIT_FLAG_SECONDS
    may_run_untracked: bool = True
    container: Container | None = None

    @property
    def exchange_seconds(self) -> float:
        """How long one exchange with the server may take."""
        return min(EXCHANGE_MAX_SECONDS, self.ttl_seconds * EXCHANGE_PART)

    @property
    def wait_update_seconds(self) -> float:
        """How long an update may stay unanswered; not to wait for the server is to ask it once."""
        return self.wait_server_seconds or self.exchange_seconds


def settle(options: RunOptions, environ: Mapping[str, str], ad: Ad | None) -> Settings:
    """Return settings whose parts fit together; raises BadConfig with one sentence."""
    server = server_of(options.server, environ, ad)
    try:
        file = _plan(options)
        ttl_seconds = check_ttl(options.ttl_seconds or file.ttl_seconds or TTL_DEFAULT_SECONDS)
        plan = replace(
            file.plan,
            takeover=options.takeover or file.plan.takeover,
            on_wall_time=options.on_wall_time or file.plan.on_wall_time,
        )
    except InvalidField as error:
        raise BadConfig(str(error)) from None
    most_grace_seconds = ttl_seconds / 2
    wait_lease_seconds = options.wait_lease_seconds
    if wait_lease_seconds is None:
        wait_lease_seconds = max(WAIT_LEASE_SECONDS, 2 * ttl_seconds)
    kill_grace_seconds = options.kill_grace_seconds
    if kill_grace_seconds is None:
        kill_grace_seconds = min(KILL_GRACE_SECONDS, most_grace_seconds)
    if 0 < wait_lease_seconds < ttl_seconds:
        raise BadConfig(
            f"--wait-lease {wait_lease_seconds:g} is shorter than the lease of {ttl_seconds:g} s, "
            "so an attempt that died could not be waited out; give at least the ttl, or 0 to ask "
            "only once"
        )
    if kill_grace_seconds > most_grace_seconds:
        raise BadConfig(
            f"--kill-grace {kill_grace_seconds:g} is more than half of the lease of "
            f"{ttl_seconds:g} s, so a payload that must go could outlive the lease; give at most "
            f"{most_grace_seconds:g}"
        )
    wall_time_seconds = options.wall_time_seconds or file.wall_time_seconds
    for of, seconds in [("", wall_time_seconds), *file.phase_wall_times.items()]:
        if seconds is not None and seconds <= kill_grace_seconds:
            raise BadConfig(
                f"the wall time of {seconds:g} s{of and f' of {of}'} leaves the payload no time "
                f"before it is asked to end, --kill-grace {kill_grace_seconds:g} s ahead of that"
            )
    return Settings(
        server,
        options.key or environ.get("HTLEASE_KEY") or None,
        plan,
        file.commands,
        options.command,
        ttl_seconds,
        wait_lease_seconds,
        WAIT_SERVER_SECONDS if options.wait_server_seconds is None else options.wait_server_seconds,
        kill_grace_seconds,
        wall_time_seconds,
        file.phase_wall_times,
        WAIT_FLAG_SECONDS if options.wait_flag_seconds is None else options.wait_flag_seconds,
        options.may_run_untracked,
        options.container,
    )


def server_of(given: str | None, environ: Mapping[str, str], ad: Ad | None) -> str:
    """Return the server's URL; raises BadConfig when nothing names one.

    The access point puts `HTLeaseURL` into the ads of jobs that it gives a token.
    """
    server = given or environ.get("HTLEASE_URL") or (ad.text("HTLeaseURL") if ad else None)
    if not server:
        raise BadConfig("no server is named; give --server URL or set HTLEASE_URL")
    return server


def _plan(options: RunOptions) -> PlanFile:
    """Return the plan file, or what stands in for one."""
    if options.plan is not None and options.profile is not None:
        raise BadConfig("--plan and --profile both say which phases there are; give one of them")
    is_named = options.phase_name is not None or options.restart is not None
    if is_named and (options.plan or options.profile):
        raise BadConfig(
            "--phase-name and --restart describe the one phase of a job without a plan; "
            "leave them out"
        )
    if options.plan is not None:
        from htlease.config.plan_file import read_plan_file

        file = read_plan_file(Path(options.plan), is_sent=True)
        if file.commands and options.command:
            raise BadConfig(
                f"plan {options.plan} says what each phase runs, so {options.command[0]!r} would "
                "never run; leave it out, or take run out of every phase"
            )
        if file.commands and options.container is not None:
            return replace(file, commands=_within(options.container, file.commands))
        if not file.commands:
            _need_command(options, f"plan {options.plan} has no run")
        return file
    _need_command(options, "there is no plan")
    if options.profile is not None:
        from htlease.rules.profiles import plan_of

        return PlanFile(plan_of(options.profile), {}, None)
    plan = Plan.single(options.phase_name or "run", options.restart or "resume")
    return PlanFile(plan, {plan.phases[0].name: options.command}, None)


def _within(
    container: Container, commands: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    if container.entry is None:
        raise BadConfig(
            "the plan says what its phases run, and how to run it in the job's container cannot be "
            "told from the command line; take run out of every phase, so that the executable "
            "enters them itself"
        )
    return {phase: container.command(argv) for phase, argv in commands.items()}


def _need_command(options: RunOptions, because: str) -> None:
    if not options.command or not options.command[0]:
        raise BadConfig(f"{because} and no command is given; add `-- COMMAND ARGUMENTS...`")
