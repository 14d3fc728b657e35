"""Asking for a lease within a slot's patience, and what a refusal means for the job."""

from __future__ import annotations

from htlease.condor.job_ad import Ad
from htlease.errors import Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.wire.lease_client import Lease, LeaseClient
from htlease.wire.retry import Clock
from htlease_hooks import hook_reply
from htlease_hooks.hook_reply import NOTHING_TO_BRING_BACK, NOTHING_TO_DO, Answer
from htlease_hooks.options import Site

_ASK_AGAIN_MIN_SECONDS = 0.2
_BACKOFF_FIRST_SECONDS = 0.25
_BACKOFF_MAX_SECONDS = 2.0
_VANILLA, _LOCAL = 5, 12


def acquire(client: LeaseClient, command: m.Acquire, site: Site) -> Lease:
    """Return the lease; raises Refused or ServerUnavailable when the slot's patience is over."""
    clock = client.clock
    began_at = clock.monotonic()
    away_since: float | None = None
    backoff_seconds = _BACKOFF_FIRST_SECONDS
    while True:
        asked_at = clock.monotonic()
        try:
            return client.acquire(command)
        except Refused as refused:
            if refused.code not in ("lease-still-live", "blocked"):
                raise
            away_since = None
            left_seconds = began_at + site.wait_lease - clock.monotonic()
            if left_seconds <= 0:
                raise
            seconds = max(_ASK_AGAIN_MIN_SECONDS, refused.retry_after_seconds or 1.0)
        except ServerUnavailable:
            away_since = asked_at if away_since is None else away_since
            left_seconds = away_since + site.wait_server - clock.monotonic()
            if left_seconds <= 0:
                raise
            seconds = backoff_seconds
            backoff_seconds = min(2 * backoff_seconds, _BACKOFF_MAX_SECONDS)
        clock.sleep(min(left_seconds, _with_jitter(seconds, clock)))


def _with_jitter(seconds: float, clock: Clock) -> float:
    return seconds * (1 + clock.random() / 5)


def answer_to(
    refused: Refused, about: str, token_found_at: str | None, ad: Ad, is_before_transfer: bool
) -> Answer:
    """Return what a refusal by the server means for the job; pure."""
    code, why = refused.code, refused.detail
    if code == "lease-still-live":
        return Answer(
            hook_reply.LEASE_STILL_LIVE,
            f"{about}: {why}, so this start went back to Idle before it did anything; it starts "
            "by itself when that lease has ended",
        )
    if code == "blocked":
        return Answer(
            hook_reply.BLOCKED,
            f"{about}: {why}, so this start went back to Idle before it did anything; it starts "
            "by itself when the flag is up again",
        )
    if code in ("superseded-attempt", "stale-fence"):
        return Answer(
            hook_reply.SUPERSEDED,
            f"{about}: {why}, so this start must not run; if nothing else works on it any more, "
            "submit it again",
        )
    if code == "subjob-closed" and refused.outcome == "complete":
        return answer_to_complete(about, ad, is_before_transfer)
    if code == "subjob-closed":
        return Answer(
            hook_reply.CLOSED,
            f"{about}: {why}, so this start must not run; enroll the subjob again, then release "
            "this job",
        )
    if code in ("unauthorized", "forbidden"):
        token = f"the token found in {token_found_at}" if token_found_at else "a call without token"
        return Answer(
            hook_reply.BAD_CREDENTIAL,
            f"{about}: the server refuses {token} ({code}: {why}); give the job a new one, then "
            "release it",
        )
    return Answer(hook_reply.BAD_CONFIG, f"{about}: the server refuses the request: {refused}")


def answer_to_complete(about: str, ad: Ad, is_before_transfer: bool) -> Answer:
    """Return what lets a job end well that has nothing left to do; pure.

    Once the input has been transferred, the list of outputs stands: one that is named but not
    made would fail the job.
    """
    done = f"{about}: complete already, so nothing is run and the job ends with 0"
    universe = ad.count("JobUniverse")
    if universe == _VANILLA and is_before_transfer:
        return Answer(message=done, attributes=NOTHING_TO_BRING_BACK)
    if universe == _LOCAL or (universe == _VANILLA and not ad.text("TransferOutput")):
        return Answer(message=done, attributes=NOTHING_TO_DO)
    return Answer(hook_reply.COMPLETE, f"{about}: complete already; remove this job")


def answer_without_server(site: Site, about: str, why: str) -> Answer:
    """Return what the site's policy says to a start that got no lease; pure."""
    if site.on_no_server == "run":
        return Answer(message=f"{about}: {why}; the job starts without a lease")
    if site.on_no_server == "hold":
        return Answer(
            hook_reply.NO_SERVER_HOLD,
            f"{about}: {why}, and this site starts no job without a lease; release it later",
        )
    is_overloaded = "answered 503" in why or "answered 429" in why
    return Answer(
        hook_reply.OVERLOADED if is_overloaded else hook_reply.NO_SERVER_IDLE,
        f"{about}: {why}, so this start went back to Idle; it is tried again by itself",
    )
