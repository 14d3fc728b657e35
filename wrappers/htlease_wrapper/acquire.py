"""Getting the lease before any work is done, or knowing why not."""

from __future__ import annotations

from collections.abc import Callable

from htlease.errors import Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.wire.lease_client import Lease, LeaseClient
from htlease_wrapper.console import Console
from htlease_wrapper.exit_status import BAD_CONFIG, SUPERSEDED, TRY_LATER, NoLease, WrapperExit

#: Asked again after at least this long, whatever the server says.
_ASK_AGAIN_MIN_SECONDS = 0.2


def acquire_lease(
    client: LeaseClient,
    command: m.Acquire,
    *,
    wait_lease_seconds: float,
    wait_server_seconds: float,
    pause: Callable[[float], None],
    console: Console,
    token_found_at: str | None,
) -> Lease:
    """Return the lease; raises WrapperExit, or NoLease, with an exit code and what to do next."""
    started_at = client.clock.monotonic()
    is_told_to_wait = False
    while True:
        try:
            return _ask(client, command, wait_server_seconds, console)
        except ServerUnavailable as error:
            why = f"the server does not answer ({error})"
            raise NoLease(
                TRY_LATER,
                f"no lease, so the payload was not started: {why}; try again later",
                why,
                is_away=not is_told_to_wait,
            ) from None
        except Refused as refused:
            if refused.code != "lease-still-live":
                raise _leave(refused, token_found_at) from None
            is_told_to_wait = True
            waited_seconds = client.clock.monotonic() - started_at
            left_seconds = wait_lease_seconds - waited_seconds
            if left_seconds <= 0:
                raise WrapperExit(
                    TRY_LATER,
                    f"gave up after {waited_seconds:.0f} s: {refused.detail}; try again later or "
                    "wait longer with --wait-lease",
                ) from None
            console.say_once(
                "waiting", f"{refused.detail}; waiting up to {wait_lease_seconds:g} s for it"
            )
            seconds = max(_ASK_AGAIN_MIN_SECONDS, refused.retry_after_seconds or 1.0)
            pause(min(left_seconds, seconds * (1 + client.clock.random() / 5)))


def _ask(
    client: LeaseClient, command: m.Acquire, wait_server_seconds: float, console: Console
) -> Lease:
    try:
        return client.acquire(command)
    except ServerUnavailable as error:
        if wait_server_seconds > 0:
            console.say_once(
                "away",
                f"the server does not answer ({error}); waiting up to "
                f"{wait_server_seconds:g} s for it",
            )
    return client.acquire(command, give_up_after_seconds=wait_server_seconds)


def _leave(refused: Refused, token_found_at: str | None) -> WrapperExit:
    if refused.code == "subjob-closed":
        if refused.outcome == "complete":
            return WrapperExit(0, "the subjob is complete already; there is nothing to do")
        return WrapperExit(
            SUPERSEDED,
            f"the subjob is {refused.outcome}, so the payload was not started; enroll it again "
            "to have it run",
        )
    if refused.code in ("superseded-attempt", "stale-fence"):
        return WrapperExit(SUPERSEDED, f"the payload was not started: {refused.detail}")
    if refused.code in ("unauthorized", "forbidden"):
        token = f"the token found in {token_found_at}" if token_found_at else "a call without token"
        why = (
            f"the server refuses {token} ({refused.code}: {refused.detail}); the job needs one of"
            " its workflow as htlease.token among its input files: `htlease token mint`"
        )
    else:
        why = f"the server refuses the request: {refused}"
    return NoLease(BAD_CONFIG, why, why)


def say_what_is_left(grant: m.Grant, console: Console) -> None:
    """Tell a person which phases an attempt runs that continues after another."""
    if not grant.reclaimed or grant.attempt_number == 1:  # after a PRE script
        return
    left = ", ".join(phase.name for phase in grant.phases if phase.run)
    phases = f"; phases to run: {left}" if left and len(grant.phases) > 1 else ""
    console.say(f"continues after an earlier attempt of this job{phases}")
