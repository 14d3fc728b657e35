"""Runs a plan under one lease: enter a phase, run it, complete or fail it; then end the lease.

Which phases are left, the server decided with the grant (`htlease.rules.plan.phases_left`).
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from htlease.condor import chirp
from htlease.errors import Refused
from htlease.execution.signals import Interrupted, Signals
from htlease.rules import messages as m
from htlease.wire.lease_client import Lease
from htlease_wrapper.acquire import say_what_is_left
from htlease_wrapper.console import Console
from htlease_wrapper.details import DetailsFile
from htlease_wrapper.exit_status import OUT_OF_TIME, TRY_LATER, ExitStatus, WrapperExit, signal_name
from htlease_wrapper.lease_thread import JITTER, LeaseThread
from htlease_wrapper.phase_watch import LOOK_SECONDS, PhaseWatch
from htlease_wrapper.queued_command import QueuedCommand
from htlease_wrapper.settings import Settings
from htlease_wrapper.spawn import CannotStart
from htlease_wrapper.supervise import supervise
from htlease_wrapper.wall_time import AFTER, NO_LIMIT, Limit, limit_of

#: An evicted job does not keep its slot for the sake of its records any longer than this.
EVICTED_SECONDS = 5.0
#: A payload that has ended keeps its slot for this many refusals of the token and no longer: the
#: second is of the token that was read after the first.
_DENIALS_MAX = 2


@dataclass(eq=False, repr=False)
class PhaseRunner:
    """One attempt at the phases of a subjob."""

    settings: Settings
    lease: Lease
    lease_thread: LeaseThread
    signals: Signals
    console: Console
    #: For the payload, `HTLEASE_*` included but for what differs from phase to phase.
    environ: Mapping[str, str]
    details: DetailsFile | None
    #: An earlier process of this very start had the lease, so local work is still here.
    is_continued: bool
    #: Inside another wrapper's payload, which has said already what there is to say.
    is_nested: bool
    checkpoint_exit_code: int | None
    chirp_config: Path | None
    monotonic: Callable[[], float]
    #: When the wrapper was started, by `monotonic`: wall time counts from there.
    started_at: float
    #: A process of the payload may have run.
    has_started: bool = False
    #: How the payload that ran last ended.
    ended: ExitStatus | None = None
    #: What kept the payload from starting at all.
    why_unstartable: str | None = None
    #: The lease is to be kept for the next process in this sandbox.
    is_kept: bool = False
    #: HTCondor has nothing to bring back when the payload has ended, see `leaves_nothing`.
    is_all_back: bool = False
    _limit: Limit = NO_LIMIT
    #: HTCondor had asked for the end before the payload that ran last ended.
    _ended_evicted: bool = False
    #: The lease was given up, or will be when the server is back.
    _is_abandoned: bool = False

    def run(self) -> ExitStatus:
        """Run what is left to run and return how the payload ended.

        Raises WrapperExit when the wrapper ends for a reason of its own, and Interrupted when a
        signal asks it to end between two payloads.
        """
        if not (self.is_continued or self.is_nested):
            say_what_is_left(self.lease.grant, self.console)
        if not self.settings.commands:
            return self._run_self_managed()
        left = [phase for phase in self.lease.grant.phases if phase.run]
        for phase in left:
            if phase.name not in self.settings.commands:
                self._enqueue(m.Abandon, reason="another plan was begun in this start")
                self._finish()
                raise WrapperExit(
                    TRY_LATER,
                    f"a hook of this start has entered {phase.name}, which the plan does not have; "
                    "the next start goes by the plan",
                )
            self._check()
            self._limit = self._limit_of(phase)
            if self.monotonic() >= self._limit.stop_at:
                self._leave_out_of_time(phase, None)
            self._enter(phase)
            ended = self._run(phase, self.settings.commands[phase.name], phase.exclusive)
            if self._is_checkpoint(ended):
                return self._keep(ended)
            if self._ran_out_of_time(phase, ended):
                self._leave_out_of_time(phase, ended)
            if self._gives_up(phase, ended):
                is_last = phase is left[-1]
                return self._give_up(ended) if is_last or ended.code else self._give_up_evicted()
            if ended.code != 0:
                return self._failed(phase, ended)
            self._enqueue(m.Complete, phase=phase.name)
        self._enqueue(m.Exited, exit_code=0, is_all_back=self.is_all_back or None)
        self._finish()
        return ExitStatus(code=0)

    # ------------------------------------------------------------ one phase

    def _enter(self, phase: m.PhaseToRun) -> None:
        """Record that a phase is about to run; what must not happen twice waits for the answer."""
        queued = self._enqueued_enter(phase)
        give_up_at = self.monotonic() + self.settings.wait_flag_seconds
        while queued.blocked_by is not None:
            self._wait_for_flag(phase, queued.blocked_by, give_up_at)
            queued = self._enqueued_enter(phase)
        self.console.forget("blocked")
        self._hand_over_details(phase, queued.answer)
        self._show(
            ChirpHTLeasePhase=phase.name,
            ChirpHTLeaseAttempt=self.lease.grant.attempt_number,
            ChirpHTLeaseState="live",
        )

    def _wait_for_flag(self, phase: m.PhaseToRun, blocked: Refused, give_up_at: float) -> None:
        """Wait, with the lease in hand, until it is worth asking again; raises WrapperExit."""
        self.console.say_once(
            "blocked",
            f"{blocked.detail}; waiting up to {self.settings.wait_flag_seconds:g} s for it",
        )
        self._show(ChirpHTLeaseState=f"blocked:{blocked.flag}")
        # Jobs that waited for one flag should not all ask in the moment after it was raised.
        seconds = (blocked.retry_after_seconds or 1.0) * (1 + JITTER * self.lease_thread.random())
        until = min(give_up_at, self.monotonic() + seconds)
        while (left_seconds := until - self.monotonic()) > 0:
            self._check()
            self.signals.wait(min(left_seconds, LOOK_SECONDS))
        self._check()
        if self.monotonic() >= give_up_at:
            self._enqueue(m.Abandon, reason=blocked.detail)
            self._finish()
            raise WrapperExit(
                TRY_LATER,
                f"{phase.name} was not started: {blocked.detail}; try again later or wait longer "
                "with --wait-flag",
            )

    def _show(self, **attributes: str | int) -> None:
        """Let `condor_q` show where the job is."""
        if self.chirp_config is not None:
            self.lease_thread.run_in_background(
                functools.partial(chirp.set_delayed, self.chirp_config, attributes)
            )

    def _enqueued_enter(self, phase: m.PhaseToRun) -> QueuedCommand:
        """Post the intent and return it once it is answered or, at need, not waited for."""
        queued = self._enqueue(m.Enter, phase=phase.name)
        must_wait = phase.exclusive or phase.restart == "once"
        until = self.monotonic() + self.settings.wait_update_seconds
        while not queued.is_answered:
            self._check()
            if self.lease_thread.shortage is not None and not self.has_started:
                raise self.lease_thread.shortage
            if self.lease_thread.absence.since is not None:
                if not must_wait:
                    enter = m.Enter(self.lease.fence, self.lease.nonce, phase.name, True)
                    self.lease_thread.replace(queued, enter)
                    break
                self.console.say_once(
                    f"enter {phase.name}",
                    f"{phase.name} must not run twice, so it waits for the server",
                )
            seconds = until - self.monotonic()
            if seconds <= 0:
                raise WrapperExit(
                    TRY_LATER, f"{phase.name} was not started: the server does not answer"
                )
            self.signals.wait(min(seconds, LOOK_SECONDS))
        self._check()
        return queued

    def _hand_over_details(self, phase: m.PhaseToRun, record: dict[str, Any] | None) -> None:
        """Give the phase what was saved in it last, unless it starts afresh."""
        if self.details is None:
            return
        saved = None
        if phase.restart != "redo" or self.is_continued:
            grant = self.lease.grant
            if record is not None:
                saved = record.get("details")
            elif grant.details_phase == phase.name:
                saved = grant.details
        try:
            self.details.put(saved)
        except OSError as error:
            self.console.say(f"{self.details.path} cannot be written: {error.strerror}")

    def _run(
        self, phase: m.PhaseToRun | None, argv: Sequence[str], is_exclusive: bool
    ) -> ExitStatus:
        name = phase.name if phase else (self.lease.grant.phase or "")
        environ = {**self.environ, "HTLEASE_PHASE": name}
        if self.settings.container is not None:
            environ |= self.settings.container.handed_on(environ)
        self._limit = self._limit_of(phase)
        watch = PhaseWatch(
            self.lease_thread,
            is_exclusive,
            self.settings.kill_grace_seconds,
            self._limit.stop_at,
            self.monotonic,
        )
        try:
            on_end = functools.partial(self._on_end, phase, is_exclusive)
            self.has_started = True
            self.ended = supervise(argv, environ, self.signals, watch, self.monotonic, on_end)
        except CannotStart as error:
            self.console.say(f"cannot start: {error}")
            self.why_unstartable = str(error)
            self.ended = ExitStatus(code=error.exit_code)
        self.lease_thread.notice_details()  # a process that was left may have saved some
        if self.lease_thread.loss is not None:
            self._leave_lost()
        return self.ended

    def _on_end(self, phase: m.PhaseToRun | None, is_exclusive: bool, ended: ExitStatus) -> None:
        """Hear that a payload has ended; what it left running is not ended yet."""
        self._ended_evicted = self.signals.evicted_by is not None
        self.lease_thread.notice_details()
        if not is_exclusive and self._gives_up(phase, ended):
            # HTCondor may not wait until the rest of it is gone.
            self._abandon_evicted(ended)

    def _run_self_managed(self) -> ExitStatus:
        """Run the one payload that enters and completes its phases itself."""
        grant = self.lease.grant
        try:
            if self.details is not None:
                self.details.put(grant.details)
        except OSError as error:
            self.console.say(f"the saved details cannot be handed over: {error.strerror}")
        is_exclusive = any(phase.exclusive for phase in grant.phases)
        ended = self._run(None, self.settings.command, is_exclusive)
        if self._is_checkpoint(ended):
            return self._keep(ended)
        if self._ran_out_of_time(None, ended):
            self._leave_out_of_time(None, ended)
        if self._gives_up(None, ended):
            return self._give_up(ended)
        if ended.code == 0:
            self._enqueue(m.Exited, exit_code=0, is_all_back=self.is_all_back or None)
            self._finish()
            return ended
        return self._failed(None, ended)

    # ------------------------------------------------------------ the end

    def _is_checkpoint(self, ended: ExitStatus) -> bool:
        code = self.checkpoint_exit_code
        if self.signals.evicted_by is not None or self.monotonic() >= self._limit.stop_at:
            return False
        return code is not None and ended.code == code

    def _keep(self, ended: ExitStatus) -> ExitStatus:
        """Leave the lease to the process that HTCondor starts next in this sandbox."""
        self.is_kept = not self.lease_thread.is_handed_over()
        # The files may take a while to be transferred; the lease shall last as long as it can.
        self._enqueue(m.Renew)
        self._finish()
        return ended

    def _gives_up(self, phase: m.PhaseToRun | None, ended: ExitStatus) -> bool:
        """Tell whether a payload ended because HTCondor asked it to.

        HTCondor runs the job again then, whatever it ended with (measured on 23.9.6 and 25.14.1),
        so that 0 counts only where a second run would be wrong.
        """
        if self.lease_thread.loss is not None or self._ran_out_of_time(phase, ended):
            return False
        if ended.code == 0:
            return self._ended_evicted and not (phase is not None and phase.restart == "once")
        return self.signals.evicted_by is not None or ended.signal in self.signals.evict_on

    def _abandon_evicted(self, ended: ExitStatus) -> None:
        if not self._is_abandoned:
            number = self.signals.evicted_by or ended.signal or int(signal.SIGTERM)
            self._enqueue(m.Abandon, reason=f"asked to end by {signal_name(number)}")
            self._is_abandoned = True

    def _give_up(self, ended: ExitStatus) -> ExitStatus:
        self._abandon_evicted(ended)
        self._finish(EVICTED_SECONDS)
        return ended

    def _failed(self, phase: m.PhaseToRun | None, ended: ExitStatus) -> ExitStatus:
        reason = f"payload ended with {ended}"
        if phase is not None:
            self._enqueue(m.Fail, phase=phase.name, reason=reason, exit_code=ended.code)
        self._enqueue(m.Exited, exit_code=ended.code, exit_signal=ended.signal, reason=reason)
        self._finish()
        return ended

    # ------------------------------------------------------------ wall time

    def _limit_of(self, phase: m.PhaseToRun | None) -> Limit:
        name = phase.name if phase else None
        return limit_of(self.settings, name, self.started_at, self.monotonic())

    def _ran_out_of_time(self, phase: m.PhaseToRun | None, ended: ExitStatus) -> bool:
        """Tell whether the wall time, and not the payload or HTCondor, made the end.

        A payload that saves its work when it is asked to end may well end with 0, so that 0 counts
        only where a second run would be wrong.
        """
        if self.monotonic() < self._limit.stop_at or self.signals.evicted_by is not None:
            return False
        return not (ended.code == 0 and phase is not None and phase.restart == "once")

    def _leave_out_of_time(self, phase: m.PhaseToRun | None, ended: ExitStatus | None) -> NoReturn:
        policy = self.settings.plan.on_wall_time or "next-attempt"
        reason, code = self._limit.reason, None
        if ended is not None:
            reason, code = f"{reason}; its payload ended with {ended}", ended.code
            if policy == "fail" and phase is not None:
                self._enqueue(m.Fail, phase=phase.name, reason=reason, exit_code=code)
        number = ended.signal if ended else None
        self._enqueue(m.Exited, exit_code=code, exit_signal=number, reason=reason)
        self._finish()
        raise WrapperExit(OUT_OF_TIME, f"{reason}; {AFTER[policy]}")

    def _give_up_evicted(self) -> NoReturn:
        number = self.signals.evicted_by or int(signal.SIGTERM)
        if not self._is_abandoned:
            self._enqueue(m.Abandon, reason=f"asked to end by {signal_name(number)} between phases")
        self._finish(EVICTED_SECONDS)
        # Ending with 0 would say that the whole job is done.
        raise Interrupted(number)

    def _check(self) -> None:
        """Stop when the lease is lost or the job is asked to end."""
        if self.lease_thread.loss is not None:
            self._leave_lost()
        if self.signals.evicted_by is not None:
            self._give_up_evicted()

    def _leave_lost(self) -> None:
        loss = self.lease_thread.loss
        assert loss is not None
        if loss.may_abandon:
            self._enqueue(m.Abandon, reason=loss.text)
            self._drain(EVICTED_SECONDS)
        raise WrapperExit(loss.exit_code, f"ends because: {loss.text}")

    def _enqueue(self, command: Callable[..., m.Command], **fields: Any) -> QueuedCommand:
        return self.lease_thread.enqueue(command(self.lease.fence, self.lease.nonce, **fields))

    def _finish(self, seconds: float | None = None) -> None:
        """Deliver what is left; the payload's own status stands even if that fails."""
        had_to_end = self.signals.evicted_by is not None
        if self.lease_thread.late is not None:
            seconds = EVICTED_SECONDS  # it was waited for at the start
        self._drain(self.settings.wait_update_seconds if seconds is None else seconds)
        if self.lease_thread.loss is not None and not had_to_end:
            self._leave_lost()
        unsent = self.lease_thread.unsent()
        if unsent:
            self.console.say(
                f"{unsent} updates did not reach the server; the next attempt repeats what they "
                "were about"
            )

    def _drain(self, seconds: float) -> None:
        loss_before, denials = self.lease_thread.loss, self.lease_thread.absence.denials
        is_denied_for_good = denials + _DENIALS_MAX
        until = self.monotonic() + seconds
        if denials:
            self.lease_thread.renew_now()  # the token may be another by now
        while self.lease_thread.unsent() and self.lease_thread.loss is loss_before:
            left_seconds = until - self.monotonic()
            if left_seconds <= 0:
                return
            if self.lease_thread.absence.denials >= is_denied_for_good:
                self.console.say("the server refuses the token, so that it is not waited for")
                return
            if self.lease_thread.absence.denials > denials:
                denials = self.lease_thread.absence.denials
                self.lease_thread.renew_now()
            was_evicted = self.signals.evicted_by is not None
            self.signals.wait(min(left_seconds, LOOK_SECONDS))
            if self.signals.evicted_by is not None and not was_evicted:
                until = min(until, self.monotonic() + EVICTED_SECONDS)
