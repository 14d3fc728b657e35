"""The shadow's prepare hook, on the access point: gets a starting job its token from the relay.

HTCondor runs it as the job's owner before it activates the claim, with the job ad on stdin; what
it prints goes into the shadow's own copy of the ad and not into the queue. An attribute that
begins with `_condor_priv` is in no other file or answer either: the job alone reads it, by chirp.
Source: measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from htlease_wrapper.job_ad import Ad, parse_ad

#: Attribute by which the execution point gets its token.
TOKEN_ATTRIBUTE = "_condor_priv_HTLeaseToken"
WAIT_SERVER_SECONDS = 10.0
#: HTCondor ends a hook of the shadow after 120 s; ours is over long before.
WAIT_SERVER_MAX_SECONDS = 60.0
ASK_AGAIN_SECONDS = 0.5
STDIN_MAX_CHARS = 4 << 20
ANSWER_MAX_BYTES = 1 << 20

#: `HookStatusCode`: below 300 the job is held, from 300 on it goes back to Idle.
CONFIGURATION = 171
CREDENTIAL = 172
NO_SERVER_HOLD = 173
UNREADABLE = 177
NO_SERVER_IDLE = 602


@dataclass(frozen=True)
class Refusal:
    """The job does not start now; `status` says to HTCondor what becomes of it."""

    status: int
    text: str


@dataclass(frozen=True)
class Options:
    """What the site's configuration gave to the hook."""

    socket: str
    url: str
    wait_server_seconds: float
    on_no_server: str


class RelayAway(Exception):
    """The relay, or the server behind it, gave no answer."""


Attributes = Mapping[str, str]


def main(name: str, arguments: Sequence[str]) -> int:
    """Run the hook; what goes wrong is a `HookStatusCode` and a line on stderr."""
    try:
        outcome = prepare(_options(arguments), sys.stdin.read(STDIN_MAX_CHARS))
    except argparse.ArgumentTypeError as error:
        outcome = Refusal(CONFIGURATION, f"HTLEASE_HOOK_SHADOW_PREPARE_JOB_ARGS: {error}")
    except Exception as error:
        # The type alone: what an error quotes might be the answer that has the token.
        outcome = Refusal(UNREADABLE, f"internal error in the shadow hook: {type(error).__name__}")
    if isinstance(outcome, Refusal):
        return _refuse(outcome)
    sys.stdout.write(
        "".join(f"{attribute} = {_quoted(text)}\n" for attribute, text in outcome.items())
    )
    sys.stdout.flush()
    return 0


def prepare(options: Options, ad_text: str) -> Attributes | Refusal:
    """Return the attributes that a starting job is given, or why it does not start."""
    ad = Ad("stdin", parse_ad(ad_text))
    if ad.attributes.get("htlease") is False:
        return {}
    cluster, proc = ad.count("ClusterId"), ad.count("ProcId")
    if cluster is None or proc is None:
        return Refusal(UNREADABLE, "the job ad on stdin has no ClusterId and ProcId")
    try:
        status, answer = _ask(options, {"job": f"{cluster}.{proc}"})
    except RelayAway as error:
        return _without_server(options, str(error))
    detail = str(answer.get("detail"))
    if status == 403:
        return Refusal(CREDENTIAL, detail)
    if status == 400:
        return Refusal(CONFIGURATION, detail)
    if status != 200:
        return _without_server(options, detail)
    token = answer.get("token")
    if not isinstance(token, str):
        return {}  # this job has no lease
    given = {TOKEN_ATTRIBUTE: token}
    return {**given, "HTLeaseURL": options.url} if options.url else given


def _without_server(options: Options, why: str) -> Attributes | Refusal:
    if options.on_no_server == "run":
        sys.stderr.write(f"htlease: the job starts without a token: {' '.join(why.split())}\n")
        return {}
    status = NO_SERVER_HOLD if options.on_no_server == "hold" else NO_SERVER_IDLE
    return Refusal(status, f"no token for the job: {why}; see `htlease relay` on this access point")


def _options(arguments: Sequence[str]) -> Options:
    given = {"--socket": "", "--url": "", "--wait-server": "", "--on-no-server": ""}
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option not in given or not equals:
            raise argparse.ArgumentTypeError(
                f"{argument!r} is not one of {', '.join(f'{name}=...' for name in given)}"
            )
        given[option] = value
    seconds = given["--wait-server"] or f"{WAIT_SERVER_SECONDS:g}"
    policy = given["--on-no-server"] or "run"
    if not given["--socket"]:
        raise argparse.ArgumentTypeError("--socket=PATH is missing")
    if policy not in ("run", "idle", "hold"):
        raise argparse.ArgumentTypeError(f"--on-no-server={policy} is not run, idle or hold")
    try:
        wait_seconds = min(WAIT_SERVER_MAX_SECONDS, max(0.1, float(seconds)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"--wait-server={seconds} is not a number") from None
    return Options(given["--socket"], given["--url"], wait_seconds, policy)


def _ask(options: Options, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """Return the relay's answer, asking again while there is time; raises RelayAway."""
    until = time.monotonic() + options.wait_server_seconds
    while True:
        answer: tuple[int, Mapping[str, Any]] | None = None
        away = ""
        try:
            answer = _exchange(options.socket, body, max(0.1, until - time.monotonic()))
        except (OSError, ValueError, http.client.HTTPException) as error:
            away = f"{options.socket}: {getattr(error, 'strerror', None) or type(error).__name__}"
        if answer is not None and answer[0] != 503:
            return answer
        if until - time.monotonic() <= ASK_AGAIN_SECONDS:
            if answer is None:
                raise RelayAway(f"the relay does not answer at {away}")
            return answer
        time.sleep(ASK_AGAIN_SECONDS)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("relay", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _exchange(
    path: str, body: Mapping[str, Any], timeout_seconds: float
) -> tuple[int, Mapping[str, Any]]:
    connection = _Connection(path, timeout_seconds)
    try:
        connection.request(
            "POST", "/v1/starts", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        answer = json.loads(response.read(ANSWER_MAX_BYTES))
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise ValueError("no document")
    return response.status, answer


def _refuse(refusal: Refusal) -> int:
    """Tell HTCondor and its log what becomes of the job; return the exit status."""
    text = f"htlease: {' '.join(refusal.text.split())}"
    sys.stdout.write(f"HookStatusCode = {refusal.status}\nHookStatusMessage = {_quoted(text)}\n")
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    return refusal.status % 100 or 100


def _quoted(text: str) -> str:
    """Return a string as a ClassAd literal on one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else " " for char in escaped) + '"'
