"""PREPARE_JOB_BEFORE_TRANSFER and PREPARE_JOB: the lease, before the job costs anything.

Runs in the starter as the job's user, which waits for it for ever; so it has a limit of its own
and then follows the site's policy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from htlease.errors import BadConfig, Refused, ServerUnavailable
from htlease.execution.credentials import Token
from htlease.execution.process_start import at_start
from htlease.execution.sandbox_state import SandboxState, remove_state, write_state
from htlease.rules import messages as m
from htlease_hooks import hook_reply
from htlease_hooks.hook_reply import Answer, say
from htlease_hooks.options import Site, parse_site
from htlease_hooks.starter.acquire import acquire, answer_to, answer_without_server
from htlease_hooks.starter.context import StartContext
from htlease_hooks.starter.environment import merged_attribute
from htlease_hooks.timeout import within

#: For all that is not waiting: files, chirp, the start of the thread.
_OWN_SECONDS = 2.0
BEFORE_TRANSFER = "prepare_job_before_transfer"


def main(name: str, arguments: Sequence[str]) -> int:
    """Answer HTCondor for one of the two hooks and return the exit status."""
    ad_text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
    try:
        site = parse_site(arguments)
    except BadConfig as error:
        return Answer(hook_reply.BAD_CONFIG, f"the hook {name} is set up wrong: {error}").give()
    chained_output = ""
    if site.chain_of(name):
        from htlease_hooks.site_hook import run_site_hook  # costs as much as all the rest
        from htlease_hooks.starter.environment import split_v2

        chain_arguments = split_v2(site.chain_args)
        chained = run_site_hook(site.chain_of(name), chain_arguments, ad_text, site.chain_limit)
        if chained.has_failed:
            hook_reply.pass_on(chained.stdout)
            return chained.exit_status
        chained_output = chained.stdout
    given = prepare(name, f"{ad_text}\n{chained_output}", at_start().environ(), site)
    hook_reply.pass_on(chained_output)
    return given.give()


def prepare(name: str, ad_text: str, environ: Mapping[str, str], site: Site) -> Answer:
    """Return the answer; raises nothing, and takes no longer than the site allows."""
    limit_seconds = site.wait_lease + site.wait_server + _OWN_SECONDS
    about = "htlease"
    try:
        start = StartContext(ad_text, environ, site)
        if not start.is_readable:
            return Answer(
                hook_reply.UNREADABLE_INPUT,
                f"the hook {name} cannot read the job's ad: there is no GlobalJobId in it",
            )
        about = start.ad.text("HTLeaseKey") or f"job {start.job.global_job_id}"
        return within(limit_seconds, lambda: _prepared(name, start))
    except BadConfig as error:
        return Answer(hook_reply.BAD_CONFIG, f"{about}: {error}")
    except TimeoutError:
        return answer_without_server(site, about, f"no answer in {limit_seconds:g} s")
    except Exception as error:  # ours, and no reason for a job to suffer more than the site wants
        return answer_without_server(site, about, f"internal error, please report it: {error!r}")


def _prepared(name: str, start: StartContext) -> Answer:
    start.hook_state.make()
    start.hook_state.write_site(start.site)
    if start.is_left_alone or start.is_left_to_wrapper:
        return Answer()
    if name == BEFORE_TRANSFER and start.token_comes_later:
        return Answer()  # it may be for another subjob than the one that the access point stamped
    if start.token is None and start.needs_token:
        if name == BEFORE_TRANSFER:
            return Answer()  # it may come with the input files
        about = f"job {start.job.global_job_id}"
        return answer_without_server(start.site, about, "the job has no token for the lease server")
    earlier = start.hook_state.token()
    if start.token is not None:
        start.hook_state.write_token(start.token.text)
    state = start.state()
    if state is not None and state.key != str(start.key):
        _give_up(start, state, earlier)
        state = None
    if state is None:
        return _acquired(name, start)
    if state.fence is None:
        return Answer()  # asked in vain before the transfer; UPDATE_JOB_INFO catches up
    return _confirmed(name, start, state)


def _give_up(start: StartContext, state: SandboxState, earlier: str | None) -> None:
    """Let go of what was acquired before the input brought a token for another subjob."""
    remove_state(start.hook_state.folder, state.nonce)
    if state.fence is None or earlier is None:
        return
    reason = f"the job's input brought a token for {start.key}"
    try:
        start.connect(state, Token(earlier, "an earlier hook")).call(
            m.Abandon(state.fence, state.nonce, reason)
        )
    except (Refused, ServerUnavailable) as error:
        say(f"{state.key}: its lease has to run out: {error}")


def _acquired(name: str, start: StartContext) -> Answer:
    state = start.new_state()
    write_state(start.hook_state.folder, state)  # a lost reply is found again by this nonce
    try:
        command = replace(start.acquire_command(state), heeds_flags=True)
        lease = acquire(start.connect(state), command, start.site)
    except Refused as refused:
        return _refusal(name, start, refused)
    except ServerUnavailable as error:
        start.show({"ChirpHTLeaseState": "server-away"})
        return answer_without_server(start.site, str(start.key), str(error))
    keep(start, state, lease.grant)
    number = lease.grant.attempt_number
    say(f"{start.key} attempt {number}: has the lease, fence {lease.fence}")
    start.show({"ChirpHTLeaseAttempt": number, "ChirpHTLeaseState": "live"})
    if start.environment is None:
        say(f"{start.key}: the job's environment cannot be read, so nothing is added to it")
        return Answer()
    added = start.variables(lease.grant)
    return Answer(attributes={"Environment": merged_attribute(start.environment, added)})


def keep(start: StartContext, state: SandboxState, grant: m.Grant) -> None:
    """Leave a granted lease to the hooks that follow, or to a wrapper."""
    write_state(
        start.hook_state.folder,
        replace(state, fence=grant.fence, attempt_number=grant.attempt_number),
    )
    # A wrapper enters its own phases; on a slow machine it may be there after the first update.
    if len(grant.phases) == 1 and not start.brings_wrapper:
        start.hook_state.write_phase(grant.phases[0].name)


def _confirmed(name: str, start: StartContext, state: SandboxState) -> Answer:
    """Make sure that a lease outlasted the transfer of the input."""
    assert state.fence is not None
    client = start.connect(state)
    try:
        answered = client.call(m.Renew(state.fence, state.nonce))
        start.keep_token(answered)
        order = answered.get("order")
        if order == "continue":
            return Answer()
        if order == "cancel":
            raise Refused("subjob-closed", "the subjob is cancelled", outcome="cancelled")
        client.call(m.Abandon(state.fence, state.nonce, "recalled before the job began"))
        raise Refused("lease-still-live", "a later attempt has asked for the lease")
    except Refused as refused:
        return _refusal(name, start, refused)
    except ServerUnavailable:
        return Answer()  # the lease is ours as far as we know


def _refusal(name: str, start: StartContext, refused: Refused) -> Answer:
    found_at = start.token.found_at if start.token else None
    is_before_transfer = name == BEFORE_TRANSFER
    return answer_to(refused, str(start.key), found_at, start.ad, is_before_transfer)
