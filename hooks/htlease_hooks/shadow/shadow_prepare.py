"""The shadow's prepare hook, on the access point: gets a starting job its token from the agent.

HTCondor runs it as the job's owner before it activates the claim, with the job ad on stdin; what
it prints goes into the shadow's own copy of the ad and not into the queue. An attribute that
begins with `_condor_priv` is in no other file or answer either: the job alone reads it, by chirp.
Source: measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease.condor.job_ad import Ad, parse_ad
from htlease.execution.credentials import TOKEN_ATTRIBUTE
from htlease.wire.chirp_journal import GRANT_ATTRIBUTE
from htlease.wire.transport import CHIRP_URL
from htlease_hooks import hook_reply
from htlease_hooks.hook_reply import Answer, quoted
from htlease_hooks.unix_http import post

WAIT_SERVER_SECONDS = 10.0
#: HTCondor ends a hook of the shadow after 120 s; ours is over before.
WAIT_SERVER_MAX_SECONDS = 60.0
ASK_AGAIN_SECONDS = 0.5
#: HTCondor starts the job again within seconds, so a flag is waited for in place.
WAIT_FLAG_SECONDS = 20.0
WAIT_FLAG_MAX_SECONDS = 40.0
ASK_FLAG_AGAIN_SECONDS = 10.0
STDIN_MAX_CHARS = 4 << 20


@dataclass(frozen=True)
class Options:
    """What the site's configuration gave to the hook."""

    socket: str
    url: str
    wait_server_seconds: float
    wait_flag_seconds: float
    on_no_server: str


class AgentUnavailable(Exception):
    """The agent, or the server behind it, gave no answer."""


def main(name: str, arguments: Sequence[str]) -> int:
    """Run the hook on stdin and return the exit status."""
    try:
        found = prepare(_options(arguments), sys.stdin.read(STDIN_MAX_CHARS))
    except argparse.ArgumentTypeError as error:
        found = Answer(hook_reply.BAD_CONFIG, f"HTLEASE_HOOK_SHADOW_PREPARE_JOB_ARGS: {error}")
    except Exception as error:
        # The type alone: what an error quotes might be the answer that has the token.
        text = f"internal error in the shadow's hook: {type(error).__name__}"
        found = Answer(hook_reply.UNREADABLE_INPUT, text)
    return found.give()


def prepare(options: Options, ad_text: str) -> Answer:
    """Return what a starting job is given, or why it does not start."""
    ad = Ad("stdin", parse_ad(ad_text))
    if ad.attributes.get("htlease") is False:
        return Answer()
    cluster, proc = ad.count("ClusterId"), ad.count("ProcId")
    if cluster is None or proc is None:
        return Answer(
            hook_reply.UNREADABLE_INPUT, "the job ad on stdin has no ClusterId and ProcId"
        )
    try:
        status, document = _ask_about_flags(
            options, {"job": f"{cluster}.{proc}", "no_path": options.url == CHIRP_URL}
        )
    except AgentUnavailable as error:
        return _without_server(options, str(error))
    if status == 200:
        return Answer(attributes=_given(options, document))
    detail = str(document.get("detail"))
    code = _REFUSALS.get(str(document.get("code")))
    if document.get("code") == "subjob-closed" and document.get("outcome") == "complete":
        code = hook_reply.COMPLETE
    if code is None:
        return _without_server(options, detail)
    return Answer(code, f"job {cluster}.{proc}: {detail}")


#: What the agent or the server says of the job itself; all else lies between agent and server.
_REFUSALS = {
    "forbidden": hook_reply.BAD_CREDENTIAL,
    "invalid": hook_reply.BAD_CONFIG,
    "lease-still-live": hook_reply.LEASE_STILL_LIVE,
    "blocked": hook_reply.BLOCKED,
    "superseded-attempt": hook_reply.SUPERSEDED,
    "subjob-closed": hook_reply.CLOSED,
}


def _given(options: Options, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes for a job: none when it has no lease."""
    given = {
        TOKEN_ATTRIBUTE: (document.get("token"), options.url),
        GRANT_ATTRIBUTE: (document.get("grant"), CHIRP_URL),
    }
    for attribute, (value, url) in given.items():
        if isinstance(value, str):
            named = {"HTLeaseURL": quoted(url)} if url else {}
            return {attribute: quoted(value), **named}
    return {}


def _without_server(options: Options, why: str) -> Answer:
    if options.on_no_server == "run":
        return Answer(message=f"the job starts without a token: {why}")
    text = f"no token for the job: {why}; see `htlease agent` on this access point"
    is_hold = options.on_no_server == "hold"
    return Answer(hook_reply.NO_SERVER_HOLD if is_hold else hook_reply.NO_SERVER_IDLE, text)


def _options(arguments: Sequence[str]) -> Options:
    names = ("--socket", "--url", "--wait-server", "--wait-flag", "--on-no-server")
    given = dict.fromkeys(names, "")
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option not in given or not equals:
            raise argparse.ArgumentTypeError(
                f"{argument!r} is not one of {', '.join(f'{name}=...' for name in given)}"
            )
        given[option] = value
    policy = given["--on-no-server"] or "run"
    if not given["--socket"]:
        raise argparse.ArgumentTypeError("--socket=PATH is missing")
    if policy not in ("run", "idle", "hold"):
        raise argparse.ArgumentTypeError(f"--on-no-server={policy} is not run, idle or hold")
    server_seconds = _seconds(given, "--wait-server", WAIT_SERVER_SECONDS)
    flag_seconds = _seconds(given, "--wait-flag", WAIT_FLAG_SECONDS)
    return Options(
        given["--socket"],
        given["--url"],
        min(WAIT_SERVER_MAX_SECONDS, max(0.1, server_seconds)),
        min(WAIT_FLAG_MAX_SECONDS, max(0.0, flag_seconds)),
        policy,
    )


def _seconds(given: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(given[name] or default)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name}={given[name]} is not a number") from None


def _ask_about_flags(options: Options, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """Return the agent's answer, after a wait for a flag that is down; raises AgentUnavailable."""
    until = time.monotonic() + options.wait_flag_seconds
    while True:
        status, document = _ask(options, body)
        left_seconds = until - time.monotonic()
        if document.get("code") != "blocked" or left_seconds <= 0:
            return status, document
        time.sleep(min(left_seconds, ASK_FLAG_AGAIN_SECONDS))


def _ask(options: Options, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """Return the agent's answer, asking again while there is time; raises AgentUnavailable."""
    until = time.monotonic() + options.wait_server_seconds
    while True:
        found: tuple[int, Mapping[str, Any]] | None = None
        away = ""
        try:
            found = post(
                Path(options.socket), "/v1/starts", body, max(0.1, until - time.monotonic())
            )
        except (OSError, ValueError) as error:
            away = f"{options.socket}: {getattr(error, 'strerror', None) or type(error).__name__}"
        if found is not None and found[0] != 503:
            return found
        if until - time.monotonic() <= ASK_AGAIN_SECONDS:
            if found is None:
                raise AgentUnavailable(f"the agent does not answer at {away}")
            return found
        time.sleep(ASK_AGAIN_SECONDS)
