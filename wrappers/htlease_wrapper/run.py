"""`run`: read the ad, acquire, run the phases, end as the payload did."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from htlease.condor import chirp
from htlease.condor.job_ad import (
    checkpoint_exit_code,
    eviction_signals,
    evidence_of,
    leaves_nothing,
    node_of,
    place_of,
)
from htlease.condor.private_files import replace_own
from htlease.execution.connect import transport_to
from htlease.execution.credentials import Token, keep_renewed, renewed_token, token_of_job
from htlease.execution.job import Job, choose_key, find_job, own_variables
from htlease.execution.processes import adopt_orphans
from htlease.execution.sandbox_state import (
    FOLDER,
    HOOKS_FOLDER,
    STATE_FILE,
    hold,
    home_in,
    inherited,
    is_held,
    next_state,
    read_state,
    remove_state,
    write_state,
)
from htlease.execution.signals import Interrupted, Signals
from htlease.rules import messages as m
from htlease.wire.lease_client import Lease, LeaseClient
from htlease.wire.retry import Clock
from htlease_wrapper.acquire import acquire_lease
from htlease_wrapper.console import Console
from htlease_wrapper.details import DetailsFile
from htlease_wrapper.exec_payload import exec_payload
from htlease_wrapper.exit_status import (
    BAD_CONFIG,
    TRY_LATER,
    ExitStatus,
    NoLease,
    WrapperExit,
    end_as,
    no_lease_for,
)
from htlease_wrapper.late_lease import NO_FENCE, lease_to_come, may_run_untracked, output_prefix
from htlease_wrapper.lease_thread import LeaseThread
from htlease_wrapper.limits import NoProcess, NoRoom, check_room, is_shortage
from htlease_wrapper.nesting import is_handed_over, outer_of, take_over
from htlease_wrapper.phase_runner import PhaseRunner
from htlease_wrapper.settings import RunOptions, Settings, settle

#: This file, for a payload in a container.
_CARRIED = "htlease-ep.pyz"


def since_boot() -> float:
    """Return seconds on a clock that is never set back and also counts while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def run(options: RunOptions, environ: Mapping[str, str], console: Console) -> int:
    """Run a job under its lease and return the exit status.

    Raises WrapperExit; it is a NoLease only if the payload was not started.
    """
    if options.command and not options.names_phases and node_of(find_job(environ).ad):
        return exec_payload(
            options.command
        )  # the lease of the job's first node is that of them all
    attempt = _prepared(options, environ, console)
    if attempt.outer is not None and not options.names_phases:
        attempt.signals.give_back()
        return exec_payload(options.command)
    is_kept = False
    why_unstartable = None
    try:
        lease = attempt.acquire()
        phase_runner = attempt.prepare(lease)
        ended = attempt.do(phase_runner)
        is_kept = phase_runner.is_kept
        why_unstartable = phase_runner.why_unstartable if options.command else None
    except NoLease:
        is_kept = True
        attempt.step_back()
        raise
    except Interrupted as interrupted:
        ended = ExitStatus(signal=interrupted.number)
    except Exception as error:
        begun = attempt.phase_runner
        if not isinstance(error, NoProcess):
            if not is_shortage(error) or (begun is not None and begun.has_started):
                raise
        attempt.give_lease_back(f"the payload could not be started: {error}")
        if begun is not None and begun.ended is not None:
            raise WrapperExit(TRY_LATER, f"the next phase was not started: {error}") from error
        attempt.step_back()
        raise NoRoom(f"there is no room for a wrapper here ({error})") from error
    finally:
        if not is_kept:
            remove_state(attempt.home, attempt.nonce)
    if why_unstartable is not None:
        # HTCondor holds a job whose executable cannot be run, and says why.
        attempt.tell_policy("ChirpHTLeaseNotStarted", ChirpHTLeaseNotStartedWhy=why_unstartable)
    elif ended.code in (TRY_LATER, BAD_CONFIG):
        attempt.tell_policy("ChirpHTLeasePayloadStart")
    return end_as(ended)


def _prepared(options: RunOptions, environ: Mapping[str, str], console: Console) -> _Attempt:
    try:
        check_room()
        job = find_job(environ)
        environ = own_variables(environ, job)
        return _Attempt(settle(options, environ, job.ad), job, environ, console)
    except NoLease:
        raise
    except Exception as error:
        raise no_lease_for(error) from error


class _Attempt:
    """The steps of `run`, which share the job, its key and its nonce."""

    def __init__(
        self, settings: Settings, job: Job, environ: Mapping[str, str], console: Console
    ) -> None:
        self._started_at = since_boot()
        self.settings = settings
        self.job = job
        self._environ = environ
        self._console = console
        self._token = token_of_job(environ, job.sandbox, os.geteuid())
        #: What the server gave last in place of a token that would not have lasted.
        self._fresh: Token | None = None
        #: What is to be asked for once the server is back, where the payload runs untracked.
        self._late: m.Acquire | None = None
        self._key = choose_key(settings.key, job.ad, self._token)
        console.subjob = str(self._key)
        left = None if is_held(job.sandbox) else read_state(job.sandbox)
        self._before = inherited(left, job.start_id)
        self._state = next_state(
            self._before, job.start_id, os.urandom(24).hex(), str(self._key), settings.server
        )
        #: The wrapper around this one that works on the same subjob.
        self.outer = outer_of(environ, job.sandbox, str(self._key), job.start_id)
        if self.outer is not None:
            # One start of the job: no earlier than the lease that it follows.
            self._state = replace(self._state, sandbox_seq=self.outer.state.sandbox_seq)
        self.phase_runner: PhaseRunner | None = None
        self.signals = Signals(eviction_signals(job.ad))
        self.nonce = self._state.nonce
        #: Open as long as this process lives.
        self._lock: int | None = None
        #: Where `.htlease.json` is.
        self.home = job.sandbox
        self._clock = Clock(monotonic=since_boot, sleep=self.signals.pause)

    def step_back(self) -> None:
        """Leave signals, and what a hook or an earlier process left, as they were found."""
        self.signals.give_back()
        if self._before is None:
            return
        try:
            if (self.home / HOOKS_FOLDER / STATE_FILE).exists():
                (self.home / STATE_FILE).unlink()
            else:
                write_state(self.home, self._before)
        except OSError:
            pass  # it could not be written before either

    def give_lease_back(self, reason: str) -> None:
        """Let the next attempt have the lease at once, if there is one."""
        try:
            if self._state.fence is not None:
                abandon = m.Abandon(self._state.fence, self._state.nonce, reason)
                self._connect().call(abandon)
        except Exception as error:
            self._console.say(f"the lease ends by itself, since it cannot be given back: {error}")

    def tell_policy(self, attribute: str, **more: str) -> None:
        """Let the job's `on_exit_remove` and `on_exit_hold` know what the exit code means.

        The attribute is set to this start, so that it says nothing of a later one.
        """
        config = chirp.config_path(self._environ, self.job.sandbox)
        start = evidence_of(self.job.ad, 0)[0].job_starts
        if config is not None and start is not None:
            chirp.set_delayed(config, {attribute: start, **more})

    def acquire(self) -> Lease:
        """Get the lease, before any work; raises WrapperExit."""
        if self._before is not None:
            self._claim()
        evidence, missing = evidence_of(self.job.ad, self._state.sandbox_seq)
        for sentence in missing:
            self._console.say(sentence)
        command = m.Acquire(
            nonce=self._state.nonce,
            evidence=evidence,
            place=place_of(self.job.ad, self.job.machine_ad),
            global_job_id=self.job.global_job_id,
            host=os.uname().nodename,
            ttl_seconds=self.settings.ttl_seconds,
            plan=self.settings.plan,
        )
        try:
            client = self._connect()
            if self.outer is not None:
                take_over(self.outer, client, self.settings.wait_server_seconds)
            lease = acquire_lease(
                client,
                command,
                wait_lease_seconds=self.settings.wait_lease_seconds,
                wait_server_seconds=self.settings.wait_server_seconds,
                pause=self.signals.pause,
                console=self._console,
                token_found_at=self._token.found_at if self._token else None,
            )
        except NoLease as error:
            if not error.is_away or self.outer is not None or not may_run_untracked(self.settings):
                raise
            self._console.say(f"{error.why}; the payload runs untracked until it does")
            self._late = command
            return lease_to_come(command)
        except (WrapperExit, Interrupted):
            raise
        except Exception as error:
            raise no_lease_for(error) from error
        self._console.attempt_number = lease.grant.attempt_number
        return lease

    def _claim(self) -> None:
        """Let hooks of this start know that the lease they acquired is looked after from here."""
        try:
            write_state(self.home, self._state)
        except OSError:
            pass  # said when the lease is there

    def prepare(self, lease: Lease) -> PhaseRunner:
        """Start keeping the lease, and lay out the sandbox for the payload."""
        details: DetailsFile | None = None
        try:
            self.home = home_in(self.home)
            self._share(lease)
            details = DetailsFile(self.home)
            self._lock = hold(self.home)
        except OSError as error:
            self._console.say(
                f"{self.home} cannot be written ({error.strerror}): the payload runs, but can save "
                "no details and enter no phases itself"
            )
        lease_thread = LeaseThread(
            self._connect,
            lease,
            self._clock,
            self.signals.wake,
            self._console,
            details,
            functools.partial(is_handed_over, self.home),
            self._keep_token,
            self._late,
            self._share,
        )
        if not lease_thread.start():
            self.signals.meanwhile = lease_thread.work
        adopt_orphans()
        self.phase_runner = PhaseRunner(
            settings=self.settings,
            lease=lease,
            lease_thread=lease_thread,
            signals=self.signals,
            console=self._console,
            environ=self._payload_environment(lease, details),
            details=details,
            is_continued=self._before is not None and self._before.fence == lease.fence,
            is_nested=self.outer is not None,
            checkpoint_exit_code=checkpoint_exit_code(self.job.ad),
            chirp_config=chirp.config_path(self._environ, self.job.sandbox),
            monotonic=since_boot,
            started_at=self._started_at,
            is_all_back=leaves_nothing(self.job.ad),
        )
        return self.phase_runner

    def _share(self, lease: Lease) -> None:
        """Let the other processes of this start have the lease; raises OSError."""
        if lease.fence != NO_FENCE:
            grant = lease.grant
            self._state = replace(
                self._state, fence=grant.fence, attempt_number=grant.attempt_number
            )
        write_state(self.home, self._state)

    def do(self, phase_runner: PhaseRunner) -> ExitStatus:
        """Run the phases; an error of ours does not replace how the payload ended."""
        try:
            return phase_runner.run()
        except (WrapperExit, Interrupted, NoProcess):
            raise
        except Exception as error:
            if phase_runner.ended is None:
                raise
            self._console.say(f"internal error, the payload's own status stands: {error!r}")
            return phase_runner.ended
        finally:
            phase_runner.lease_thread.stop()

    def _keep_token(self, answer: Mapping[str, Any]) -> bool:
        fresh = renewed_token(answer)
        if fresh is None:
            return False
        self._fresh = fresh
        try:
            keep_renewed(self.home / FOLDER, fresh)
        except OSError:
            pass  # then it is in this process only; that the payload can enter no phases was said
        return True

    def _connect(self) -> LeaseClient:
        token = token_of_job(self._environ, self.job.sandbox, os.geteuid(), self.home)
        if self._fresh is not None and (token is None or token.is_followed_by(self._fresh)):
            token = self._fresh
        transport = transport_to(
            self.settings.server,
            token.text if token else None,
            self.job.sandbox,
            self._environ,
            self.settings.exchange_seconds,
        )
        return LeaseClient(transport, self._key, self._clock)

    def _payload_environment(self, lease: Lease, details: DetailsFile | None) -> dict[str, str]:
        grant = lease.grant
        environ = dict(self._environ)
        environ.update(
            HTLEASE=str(Path(sys.argv[0]).absolute()),
            HTLEASE_KEY=str(self._key),
            HTLEASE_ATTEMPT=grant.attempt_id,
            HTLEASE_ATTEMPT_NUMBER=str(grant.attempt_number),
            HTLEASE_FENCE=str(grant.fence),
            HTLEASE_OUTPUT_PREFIX=output_prefix(grant),
            HTLEASE_SANDBOX=str(self.home),
            HTLEASE_SANDBOX_KEY=str(self._key),
            HTLEASE_URL=self.settings.server,
        )
        if details is not None:
            environ["HTLEASE_DETAILS"] = str(details.path)
            if self.settings.container is not None:
                self._carry(environ)
        return environ

    def _carry(self, environ: dict[str, str]) -> None:
        """Put this file where a container has it too: in the scratch directory."""
        copy = self.home / FOLDER / _CARRIED
        try:
            replace_own(copy, Path(environ["HTLEASE"]).read_bytes())
            copy.chmod(0o700)
        except OSError:
            return  # then a payload in there cannot call it
        environ["HTLEASE"] = str(copy)
