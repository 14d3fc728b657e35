"""What is to be said of a machine's hooks as HTCondor sees them: verdicts and remedies; pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping

from htlease.rules.plan import seconds_from
from htlease_cli.doctor.agent_state import AgentState
from htlease_cli.doctor.checks import OK, PROBLEM, WARNING, Check

KEYWORD = "HTLEASE"
TTL_DEFAULT_SECONDS = 300.0
#: First release whose starter ends in the middle of the output transfer after a JOB_EXIT hook.
#: Source: htcondor 66da57ee1a (HTCONDOR-3259); measured on 25.14.1, not so on 23.9.6.
JOB_EXIT_BREAKS = (25, 4)

HOOKS = (
    "HTLEASE_HOOK_PREPARE_JOB_BEFORE_TRANSFER",
    "HTLEASE_HOOK_PREPARE_JOB",
    "HTLEASE_HOOK_UPDATE_JOB_INFO",
    "HTLEASE_HOOK_JOB_EXIT",
    "HTLEASE_HOOK_SHADOW_PREPARE_JOB",
    "HTLEASE_ROUTER_HOOK_TRANSLATE_JOB",
    "HTLEASE_ROUTER_HOOK_UPDATE_JOB_INFO",
    "HTLEASE_ROUTER_HOOK_JOB_FINALIZE",
    "HTLEASE_ROUTER_HOOK_JOB_CLEANUP",
)
KNOBS = (
    *HOOKS,
    "HTLEASE_URL",
    "HTLEASE_TTL",
    "HTLEASE_CHAIN",
    "HTLEASE_WRAP_JOBS",
    "HTLEASE_AGENT",
    "HTLEASE_AGENT_ARGS",
    "STARTER_JOB_HOOK_KEYWORD",
    "STARTER_DEFAULT_JOB_HOOK_KEYWORD",
    "STARTER_UPDATE_INTERVAL",
    "STARTER_INITIAL_UPDATE_INTERVAL",
    "USER_JOB_WRAPPER",
    "JOB_ROUTER_HOOK_KEYWORD",
    "JOB_TRANSFORM_NAMES",
    "DAEMON_LIST",
    "ENABLE_CHIRP",
    "ENABLE_CHIRP_IO",
    "ENABLE_CHIRP_UPDATES",
    "ENABLE_CHIRP_DELAYED",
    "CHIRP_DELAYED_UPDATE_PREFIX",
)


def hook_checks(
    values: Mapping[str, str],
    version: tuple[int, ...],
    faults: Mapping[str, str],
    agent: AgentState | None = None,
) -> list[Check]:
    """Judge what HTCondor makes of the hooks; nothing is said of a role that is not there.

    `values` has the macros of KNOBS that are set, `faults` why HTCondor would not run a hook,
    `agent` how the agent was found; None where nobody looked.
    """
    checks = list(_path_checks(values, faults))
    if "HTLEASE_HOOK_PREPARE_JOB" in values:
        checks += _execution_point_checks(values, version)
    if _names(values.get("JOB_TRANSFORM_NAMES")) & {"htlease", "htleasehooks"}:
        checks += _access_point_checks(values, agent)
    checks += _router_checks(values)
    return checks


def _path_checks(values: Mapping[str, str], faults: Mapping[str, str]) -> Iterator[Check]:
    for fault in dict.fromkeys(faults.values()):
        knobs = [knob for knob in HOOKS if faults.get(knob) == fault]
        consequence = (
            "starts get no token"
            if all("SHADOW" in knob for knob in knobs)
            else "HTCondor fails every job that needs it, one after the other"
        )
        paths = ", ".join(f"{knob} = {values[knob]}" for knob in knobs)
        yield Check(
            "hook path",
            PROBLEM,
            f"{fault}: {paths}; {consequence}",
            "run `htlease hooks install` again, or take the configuration file away",
        )
    present = [knob for knob in HOOKS if knob in values]
    if present and not faults:
        what = f"all {len(present)} hooks" if len(present) > 1 else present[0]
        yield Check("hook paths", OK, f"HTCondor can run {what}")


def _execution_point_checks(values: Mapping[str, str], version: tuple[int, ...]) -> Iterator[Check]:
    forced = values.get("STARTER_JOB_HOOK_KEYWORD")
    default = values.get("STARTER_DEFAULT_JOB_HOOK_KEYWORD")
    keyword = forced or default
    if keyword != KEYWORD:
        macro = "STARTER_JOB_HOOK_KEYWORD" if forced else "STARTER_DEFAULT_JOB_HOOK_KEYWORD"
        yield Check(
            "starter hooks",
            PROBLEM,
            f"{macro} is {keyword}, so our hooks are not called"
            if keyword
            else f"{macro} is not set, so our hooks are not called",
            f"`htlease hooks install --role ep --chain {keyword}` calls both"
            if keyword
            else "`htlease hooks install --role ep` sets it",
        )
    else:
        whom = "every job" if forced else "every job that names no other HookKeyword"
        chain = values.get("HTLEASE_CHAIN")
        yield Check(
            "starter hooks", OK, f"for {whom}{f', after those of {chain}' if chain else ''}"
        )
    yield _job_exit_check(values, keyword or KEYWORD, version)
    yield _renewal_check(values)
    yield from _chirp_checks(values)
    yield from _wrapper_checks(values)


def _job_exit_check(values: Mapping[str, str], keyword: str, version: tuple[int, ...]) -> Check:
    is_there = "HTLEASE_HOOK_JOB_EXIT" in values
    if is_there and keyword == KEYWORD and version >= JOB_EXIT_BREAKS:
        return Check(
            "JOB_EXIT hook",
            PROBLEM,
            f"HTCondor {_text(version)} runs jobs that transfer files again and again with it",
            "take HTLEASE_HOOK_JOB_EXIT out and run condor_reconfig; nothing depends on it",
        )
    if is_there:
        return Check("JOB_EXIT hook", OK, "records how the payload ended")
    return Check("JOB_EXIT hook", OK, f"left out, as it must be on HTCondor {_text(version)}")


def _renewal_check(values: Mapping[str, str]) -> Check:
    for name in ("HTLEASE_TTL", "STARTER_UPDATE_INTERVAL", "STARTER_INITIAL_UPDATE_INTERVAL"):
        if seconds_from(values.get(name, "0")) is None:
            return Check(
                "renewal",
                PROBLEM if name == "HTLEASE_TTL" else WARNING,
                f"{name} is {values[name]}, not a number of seconds",
                "write it as a number, so that it can be held against the others",
            )
    ttl = _seconds(values, "HTLEASE_TTL", TTL_DEFAULT_SECONDS)
    interval = _seconds(values, "STARTER_UPDATE_INTERVAL", 300.0)
    first = _seconds(values, "STARTER_INITIAL_UPDATE_INTERVAL", 8.0)
    finding = f"every {interval:g} s, first after {first:g} s; leases last {ttl:g} s"
    longest = max(interval, first)
    if longest >= ttl:
        return Check(
            "renewal",
            PROBLEM,
            f"{finding}: they end between two renewals",
            "set HTLEASE_TTL to three times HTLEASE_UPDATE_INTERVAL at least",
        )
    if 3 * longest > ttl:
        return Check(
            "renewal",
            WARNING,
            f"{finding}: one renewal that fails may cost the lease",
            "set HTLEASE_TTL to three times HTLEASE_UPDATE_INTERVAL at least",
        )
    return Check("renewal", OK, finding)


def _chirp_checks(values: Mapping[str, str]) -> Iterator[Check]:
    # Without IO a starter opens no proxy to the shadow, so that attributes cannot be read either.
    # Source: measured on 23.9.6 and 25.14.1.
    for knob in ("ENABLE_CHIRP", "ENABLE_CHIRP_IO", "ENABLE_CHIRP_UPDATES"):
        if _is_false(values.get(knob)):
            yield Check(
                "chirp",
                WARNING,
                f"{knob} is False: the access point cannot hand tokens to the hooks",
                f"set {knob} to True, or let jobs bring a htlease.token file",
            )
            return
    prefixes = _names(values.get("CHIRP_DELAYED_UPDATE_PREFIX", "Chirp*"))
    is_ours = any(fnmatch.fnmatchcase("chirphtlease", prefix) for prefix in prefixes)
    if _is_false(values.get("ENABLE_CHIRP_DELAYED")) or not is_ours:
        yield Check(
            "chirp",
            WARNING,
            "delayed updates of ChirpHTLease* are switched off: condor_q does not show attempt, "
            "phase and lease",
            "let ENABLE_CHIRP_DELAYED be True and CHIRP_DELAYED_UPDATE_PREFIX contain Chirp*",
        )
        return
    yield Check("chirp", OK, "hooks can read their token, and condor_q shows the lease")


def _wrapper_checks(values: Mapping[str, str]) -> Iterator[Check]:
    wrapper = values.get("USER_JOB_WRAPPER", "")
    if _is_true(values.get("HTLEASE_WRAP_JOBS")) and not wrapper.endswith("/htlease-ep.pyz"):
        yield Check(
            "job wrapper",
            WARNING,
            f"HTLEASE_WRAP_JOBS is True, but USER_JOB_WRAPPER is {wrapper or 'not set'}",
            "set HTLEASE_WRAP_JOBS in a file that is read before ours, and USER_JOB_WRAPPER "
            "in none that is read after it",
        )


def _access_point_checks(values: Mapping[str, str], agent: AgentState | None) -> Iterator[Check]:
    names = _names(values.get("JOB_TRANSFORM_NAMES"))
    if "htleasehooks" in names and "job_router" in _names(values.get("DAEMON_LIST")):
        yield Check(
            "stamped keyword",
            PROBLEM,
            "jobs are given HookKeyword = HTLEASE here, which the Job Router takes for its own",
            "set HTLEASE_STAMP_HOOK_KEYWORD = False and run condor_reconfig",
        )
    else:
        yield Check("stamps", OK, "every job gets HTLeaseKey at submission")
    if "HTLEASE_AGENT" in values:
        yield _agent_check(values["HTLEASE_AGENT"], agent)
    else:
        yield Check(
            "agent",
            WARNING,
            "HTLEASE_AGENT is not set: jobs that bring no token get none",
            "`htlease hooks install --role ap --set HTLEASE_AGENT=/path/of/htlease`",
        )


def _agent_check(command: str, agent: AgentState | None) -> Check:
    if agent is None:
        return Check("agent", OK, f"condor_master is to run {command} agent")
    if agent.is_answering:
        return Check("agent", OK, f"{command} agent answers at {agent.socket}")
    log = agent.log or "$(LOG)/HTLeaseAgentLog"
    said = f"; {log} ends with: {agent.last_words}" if agent.last_words else ""
    found = f"condor_master is to run {command} agent, but nothing stays at {agent.socket}{said}"
    if "pip install" in agent.last_words:
        remedy = "install what it names beside that command; condor_master starts it by itself"
        return Check("agent", PROBLEM, found, remedy)
    return Check(
        "agent", PROBLEM, found, f"see {log} and MasterLog, or start it by hand to see why"
    )


def _router_checks(values: Mapping[str, str]) -> Iterator[Check]:
    router = values.get("JOB_ROUTER_HOOK_KEYWORD")
    if router is None:
        return
    starter = {
        values.get("STARTER_JOB_HOOK_KEYWORD"),
        values.get("STARTER_DEFAULT_JOB_HOOK_KEYWORD"),
        KEYWORD if "HTLEASE_HOOK_UPDATE_JOB_INFO" in values else None,
    }
    if router in starter:
        yield Check(
            "router keyword",
            PROBLEM,
            f"JOB_ROUTER_HOOK_KEYWORD is {router}, which the starter uses too: each calls the "
            "other's UPDATE_JOB_INFO hook",
            "give the router a keyword of its own, such as HTLEASE_ROUTER",
        )
    elif router.startswith("HTLEASE"):
        yield Check("router hooks", OK, f"{router}, apart from the starter's")


def _names(text: str | None) -> set[str]:
    return {name.lower() for name in re.split(r"[,\s]+", text or "") if name}


def _is_false(text: str | None) -> bool:
    return text is not None and text.strip().lower() in ("false", "f", "no", "n", "0")


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() in ("true", "t", "yes", "y", "1")


def _seconds(values: Mapping[str, str], name: str, default: float) -> float:
    return float(values.get(name, default))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
