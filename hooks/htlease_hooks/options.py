"""What a site's configuration tells the hooks: the arguments of both PREPARE hooks. Pure.

HTCondor gives arguments to PREPARE hooks only; the others read what PREPARE noted (`hook_state`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from htlease.errors import BadConfig, InvalidField
from htlease.rules.plan import check_ttl, seconds_from

POLICIES = ("run", "idle", "hold")


@dataclass(frozen=True)
class Site:
    """The options; an empty value stands for the default."""

    #: Used where neither the job nor its access point names a server.
    server: str = ""
    ttl: float = 300.0
    #: A start waits so long in its slot for an earlier lease to end.
    wait_lease: float = 20.0
    #: Slot time that a server which does not answer may cost in one call of a hook.
    wait_server: float = 10.0
    #: One of POLICIES, for a start that got no lease because no server answered.
    on_no_server: str = "run"
    #: The site's own hooks, called before ours with the same input; empty: none.
    chain_prepare_before_transfer: str = ""
    chain_prepare: str = ""
    chain_update: str = ""
    chain_exit: str = ""
    #: Arguments of the site's own PREPARE hooks, as in its `_HOOK_PREPARE_JOB_ARGS`.
    chain_args: str = ""
    #: How long one of the site's own PREPARE hooks may take.
    chain_limit: float = 600.0

    def chain_of(self, hook: str) -> str:
        """Return the path of the site's own hook for one of ours, or an empty text."""
        return {
            "prepare_job_before_transfer": self.chain_prepare_before_transfer,
            "prepare_job": self.chain_prepare,
            "update_job_info": self.chain_update,
            "job_exit": self.chain_exit,
        }[hook]


def parse_site(arguments: Sequence[str]) -> Site:
    """Read `--name=value` arguments; raises BadConfig with one sentence."""
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (name.startswith("--") and equals):
            raise BadConfig(f"argument {argument!r} of the hook is not --NAME=VALUE")
        given[name[2:].replace("-", "_")] = value.strip()
    return site_from(given)


def site_from(given: Mapping[str, object]) -> Site:
    """Read options by name; raises BadConfig with one sentence."""
    defaults = {part.name: part.default for part in fields(Site)}
    values: dict[str, object] = {}
    for name, value in given.items():
        if name not in defaults:
            known = ", ".join(defaults).replace("_", "-")
            raise BadConfig(
                f"--{name.replace('_', '-')} is no option of the hook; there are {known}"
            )
        if value != "":
            is_number = isinstance(defaults[name], float)
            values[name] = _seconds(name, value) if is_number else value
    site = replace(Site(), **values)  # type: ignore[arg-type]
    if site.on_no_server not in POLICIES:
        raise BadConfig(f"--on-no-server={site.on_no_server} is not one of {', '.join(POLICIES)}")
    try:
        check_ttl(site.ttl)
    except InvalidField as error:
        raise BadConfig(f"--ttl: {error}") from None
    return site


def _seconds(name: str, value: object) -> float:
    seconds = seconds_from(value)
    if seconds is None:
        raise BadConfig(f"--{name.replace('_', '-')}={value} is not a number of seconds")
    return seconds
