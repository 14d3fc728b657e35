"""Keeps one lease from a thread of its own: renews, delivers updates in order, sees it lost.

Only this thread speaks to the server while a payload runs. What a verdict means for the payload
is the main thread's business (`supervise`), which asks for it by the clock and is woken when it
changes.

Promised: the payload of an exclusive phase is told to stand still before its lease can have
ended. Not promised: the same for a wrapper that itself does not run (stopped, or a frozen host).
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from htlease.errors import Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.wire.lease_client import Lease, LeaseClient
from htlease.wire.retry import Clock
from htlease_wrapper.absence import Absence
from htlease_wrapper.console import Console
from htlease_wrapper.details import DetailsFile, UnusableDetails
from htlease_wrapper.exit_status import BAD_CONFIG
from htlease_wrapper.late_lease import NO_FENCE, under
from htlease_wrapper.limits import is_shortage
from htlease_wrapper.queued_command import Loss, QueuedCommand, Verdict

RENEW_PART = 1 / 4
#: Renewals of a thousand jobs that started together should not stay together.
JITTER = 0.2
DETAILS_SECONDS = 1.0
#: How long before the deadline an exclusive payload is stopped.
STILL_PART = 1 / 20
STILL_MAX_SECONDS = 2.0
_THREAD_BEGINS_SECONDS = 10.0
#: Of the thread; a usual stack of 8 MiB may be more than a limit of address space has left.
_STACK_BYTES = 512 << 10

#: After these there is no lease.
_ENDS = (m.Exited, m.Abandon)
_CREDENTIAL_CODES = frozenset({"unauthorized", "forbidden"})
_LOST_CODES = frozenset({"superseded-attempt", "stale-fence", "unknown-subjob", "subjob-closed"})


class LeaseThread:
    """Keeps one lease; the thread is its own, or whoever calls `work` where none can be had."""

    def __init__(
        self,
        connect: Callable[[], LeaseClient],
        lease: Lease,
        clock: Clock,
        wake: Callable[[], None],
        console: Console,
        details: DetailsFile | None,
        is_handed_over: Callable[[], bool] = lambda: False,
        keep_token: Callable[[Mapping[str, Any]], bool] = lambda answer: False,
        late: m.Acquire | None = None,
        share: Callable[[Lease], None] = lambda lease: None,
    ) -> None:
        """Prepare to hold a lease.

        `connect` makes a client with the token as it is then: HTCondor refreshes the tokens of
        long jobs. `wake` makes the main thread look at the verdict again. `is_handed_over` says
        whether a wrapper within the payload has taken the subjob over. `keep_token` keeps the fresh
        token that the answer to a renewal may have, and tells whether there was one. `late` is to
        be asked before anything else, where the lease is one to come; `share` hands it on then.
        """
        self.lease = lease
        #: Why this attempt has to end, once it has to.
        self.loss: Loss | None = None
        #: The system has no memory, descriptor or the like left for what the last step needed.
        self.shortage: Exception | None = None
        #: The request for the lease, as long as there is none.
        self.late = late
        # Of a payload that runs without its lease it was said why.
        self.absence = Absence(clock, console, is_told=late is not None)
        self._share = share
        self._is_shared = late is None
        self._connect = connect
        self._keep_token = keep_token
        self._clock = clock
        self._wake = wake
        self._console = console
        self._details = details
        self.is_handed_over = is_handed_over
        self._client = connect()
        self._queued: deque[QueuedCommand] = deque()
        self._changed = threading.Condition()
        self._background_task: Callable[[], object] | None = None
        self._is_over = False
        self._has_thread = True
        #: The subjob is closed by our own doing, the lease given up or handed over: nothing is
        #: left to renew.
        self._is_released = False
        self._details_at = 0.0
        self._renew_at = clock.monotonic() + self._renew_seconds()

    def start(self) -> bool:
        """Start keeping the lease; False: no thread can be had, and `work` is to be called."""
        threading.stack_size(_STACK_BYTES)
        has_begun = threading.Event()
        try:
            # `Thread.start` waits for ever for a thread that has no memory to begin with.
            _thread.start_new_thread(self._run, (has_begun,))
        except (RuntimeError, MemoryError):
            return False
        if not has_begun.wait(_THREAD_BEGINS_SECONDS):
            with self._changed:
                self._has_thread = False
        return self._has_thread

    def work(self) -> float:
        """Do what is due, in place of the thread; return in how many seconds something is again."""
        if not self._is_over and self._next_at() <= self._clock.monotonic():
            self._try_step()
        return max(0.0, self._next_at() - self._clock.monotonic())

    def enqueue(self, command: m.Command) -> QueuedCommand:
        """Queue a command after those queued before; it is kept while the server is away."""
        queued = QueuedCommand(command, self._clock.wall())
        with self._changed:
            if self._is_released and self.lease.fence == NO_FENCE:
                queued.answer = {}  # there will be no lease to send it under
                return queued
            self._queued.append(queued)
            self._changed.notify()
        return queued

    def replace(self, queued: QueuedCommand, command: m.Command) -> None:
        """Send another command in a queued one's place, unless it was answered already."""
        with self._changed:
            queued.command = command

    def run_in_background(self, background_task: Callable[[], object]) -> None:
        """Have the thread do something short and unimportant when it has nothing else to do."""
        with self._changed:
            self._background_task = background_task
            self._changed.notify()

    def renew_now(self) -> None:
        """Renew now: time may have passed unnoticed."""
        with self._changed:
            self._renew_at = self.absence.retry_at = 0.0
            self._changed.notify()

    def notice_details(self) -> None:
        """Queue details that the payload has saved and that were not noticed yet."""
        if self._details is None or self._is_released:
            return
        with self._changed:  # the main thread looks too, before a phase ends
            if any(isinstance(queued.command, _ENDS) for queued in self._queued):
                return  # they would come after the lease's end
            try:
                details = self._details.take_new()
            except UnusableDetails as error:
                self._console.say(
                    f"the new details are not saved: {error}; the last good ones stay"
                )
                return
            if details is None:
                return
            command = m.Renew(self.lease.fence, self.lease.nonce, details)
            last = self._queued[-1] if self._queued else None
            if last is not None and isinstance(last.command, m.Renew) and not last.was_tried:
                last.command = command  # only the newest matter
            else:
                self.enqueue(command)

    def random(self) -> float:
        """Return a random number in [0, 1), to keep waiting jobs apart."""
        return self._clock.random()

    def stop(self) -> None:
        """Keep the lease no longer; it ends by itself unless it was given up."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def unsent(self) -> int:
        """Return how many commands have not been answered."""
        return len(self._queued)

    def verdict(self, is_exclusive: bool) -> Verdict:
        """Say what a payload has to do now."""
        if self.loss is not None:
            return Verdict.END
        if is_exclusive and not self._is_released and self.seconds_to_stillness() <= 0:
            return Verdict.STAND_STILL
        return Verdict.GO_ON

    def seconds_to_change(self, is_exclusive: bool) -> float | None:
        """Return in how many seconds the verdict may change by time alone; None: it will not."""
        if self.verdict(is_exclusive) is Verdict.GO_ON and is_exclusive and not self._is_released:
            return max(0.0, self.seconds_to_stillness())
        return None

    def seconds_to_stillness(self) -> float:
        """Return in how many seconds an exclusive payload has to stand still."""
        margin = min(STILL_MAX_SECONDS, self.lease.ttl_seconds * STILL_PART)
        return self.lease.deadline - margin - self._clock.monotonic()

    # -------------------------------------------------------- the thread

    def _run(self, has_begun: threading.Event) -> None:
        has_begun.set()
        while True:
            with self._changed:
                seconds = self._next_at() - self._clock.monotonic()
                if seconds > 0 and not self._is_over:
                    self._changed.wait(seconds)
                if self._is_over or not self._has_thread:
                    return
            self._try_step()

    def _try_step(self) -> None:
        try:
            self._step()
        except Exception as error:  # the lease may be lost for it, but not the payload
            self.shortage = error if is_shortage(error) else None
            self._console.say_once("lease thread", f"the lease cannot be kept: {error!r}")
            self.absence.back_off(self.lease.ttl_seconds)

    def _next_at(self) -> float:
        due = [self._details_at]
        if self._queued or self.late is not None:
            due.append(self.absence.retry_at)
        if self._background_task is not None:
            due.append(0.0)
        if self._has_to_renew:
            due.append(max(self._renew_at, self.absence.retry_at))
        return min(due)

    @property
    def _has_to_renew(self) -> bool:
        """Tell whether the lease is to last; one that may have been given up already is not.

        An end whose answer was lost has ended the lease, and a renewal would be refused.
        """
        if self._is_released or self.loss is not None or self.late is not None:
            return False
        first = self._queued[0] if self._queued else None
        is_leaving = first is not None and isinstance(first.command, _ENDS)
        return not (is_leaving and first is not None and first.was_tried)

    def _step(self) -> None:
        now = self._clock.monotonic()
        if self.is_handed_over():
            with self._changed:
                self._is_released = True
                self._queued.clear()
            self._wake()
        if now >= self._details_at:
            self._details_at = now + DETAILS_SECONDS
            self.notice_details()
        if now >= self.absence.retry_at:
            if self.late is not None:
                self._ask(self.late)
            # Renewal first: a command that the server chokes on must not cost the lease.
            elif now >= self._renew_at and self._has_to_renew:
                self._deliver(QueuedCommand(m.Renew(self.lease.fence, self.lease.nonce)))
            elif self._queued and self._deliver(self._queued[0]):
                with self._changed:
                    self._queued.popleft()
                self._wake()
        if not (self._is_shared or self._queued or self.late):
            self._hand_on()
        background_task, self._background_task = self._background_task, None
        if background_task is not None:
            background_task()

    def _hand_on(self) -> None:
        """Let the payload's own calls have a lease that came late, after what was meant before."""
        self._is_shared = True
        try:
            self._share(self.lease)
        except OSError:
            pass  # that the payload can enter no phases was said

    def _ask(self, command: m.Acquire) -> None:
        """Ask for the lease of a payload that runs untracked."""
        try:
            lease = self._client.acquire(command)
        except ServerUnavailable as error:
            self._is_away(f"the server does not answer ({error})")
            return
        except Refused as refused:
            self._not_granted(refused)
            return
        self.absence.end()
        with self._changed:
            self.lease, self.late = lease, None
            self._renew_at = self._clock.monotonic() + self._renew_seconds()
        self._console.attempt_number = lease.grant.attempt_number

    def _not_granted(self, refused: Refused) -> None:
        if refused.code in _CREDENTIAL_CODES:
            self._is_denied(refused)
        elif refused.code == "lease-still-live":
            self._console.say_once("late", f"{refused.detail}; the payload runs beside it")
            self.absence.back_off(self.lease.ttl_seconds)
        elif refused.code == "superseded-attempt" or refused.outcome == "cancelled":
            self.late = None
            self._lose(Loss(f"no lease can be had: {refused}; the payload is ended"))
        else:
            self._console.say(f"no lease can be had: {refused}; the payload runs untracked")
            with self._changed:
                self.late, self._is_released = None, True
                self._queued.clear()
            self._wake()

    def _deliver(self, queued: QueuedCommand) -> bool:
        """Send a command once; tell whether it was answered."""
        with self._changed:
            queued.was_tried = True
            command = queued.command
        sent_at = self._clock.monotonic()
        try:
            sent = under(self.lease, command)
            queued.answer = self._client.call(sent, meant_at=queued.meant_at)
        except ServerUnavailable as error:
            self._is_away(f"the server does not answer ({error})")
            return False
        except Refused as refused:
            if refused.code in _CREDENTIAL_CODES:
                self._is_denied(refused)
                return False
            self.absence.end()
            if refused.code == "blocked" and queued.command is not command:
                return False  # its phase has begun meanwhile, which it says now
            queued.refused = refused
            if refused.code != "blocked":
                self._weigh(command, refused)
            return True
        self.absence.end()
        if isinstance(command, _ENDS):
            self._is_released = True
        if isinstance(command, m.Renew):
            self._renewed(queued.answer, sent_at)
            if self._keep_token(queued.answer):
                self._client = self._connect()
        return True

    def _renewed(self, answer: dict[str, Any], sent_at: float) -> None:
        renewal = m.Renewal(answer["expires_in_seconds"], answer["order"], answer.get("outcome"))
        with self._changed:
            self._renew_at = self._clock.monotonic() + self._renew_seconds()
            if renewal.order == "continue":
                self.lease = self.lease.renewed(renewal.expires_in_seconds, sent_at)
        if renewal.order == "cancel":
            self._lose(Loss("the subjob was cancelled; the payload is ended"))
        elif renewal.order == "stop" and renewal.outcome is not None:
            self._is_released = True  # nobody but the holder can have closed it otherwise
        elif renewal.order == "stop":
            self._lose(
                Loss("a newer attempt waits for the lease; the payload is ended", may_abandon=True)
            )
        self._wake()

    def _weigh(self, command: m.Command, refused: Refused) -> None:
        """Decide what a refusal means for the attempt as a whole."""
        if refused.code in _LOST_CODES:
            if self.is_handed_over():
                self._is_released = True
            elif not (self._is_released and refused.code == "subjob-closed"):
                self._lose(Loss(f"the lease is lost: {refused}; the payload is ended"))
        elif isinstance(command, m.Renew) and command.details is not None:
            self._console.say(f"the server does not save the details: {refused}")
        else:
            self._lose(
                Loss(
                    f"the server refuses an update: {refused}; the payload is ended",
                    BAD_CONFIG,
                    may_abandon=True,
                )
            )

    def _lose(self, loss: Loss) -> None:
        if self.loss is None:
            self.loss = loss
            self._console.say(loss.text)
        self._wake()

    def _is_denied(self, refused: Refused) -> None:
        self._client = self._connect()  # with the token as it is now
        self.absence.denials += 1
        self._is_away(f"the server refuses the token ({refused.code}: {refused.detail})")

    def _is_away(self, text: str) -> None:
        self.absence.note(text, self.lease.ttl_seconds)
        self._wake()

    def _renew_seconds(self) -> float:
        jitter = 1 + JITTER * (2 * self._clock.random() - 1)
        return self.lease.ttl_seconds * RENEW_PART * jitter
