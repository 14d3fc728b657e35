"""One watcher of one transfer: holds the state lease, moves the transfer on, waits, tells.

Any number may run; who holds the lease acts, the others wait for it or leave. A watcher that ends
leaves the task at the service alone: the next one, of this submission or another, finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from htlease.errors import Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.wire.lease_client import Lease, LeaseClient
from htlease.wire.retry import Clock
from htlease_dagman.staging.engine import Adopted, Engine, Verdict, take_up
from htlease_dagman.staging.notify import send_notice
from htlease_dagman.staging.staging_file import Notice
from htlease_dagman.staging.transfer import TransferError
from htlease_dagman.staging.transfer_record import PHASE, TransferRecord, read_record

#: DAGMan's RETRY spares one exit code, so whatever is not to be tried again has the same. It is not
#: 1, with which a Python ends that could not even start.
DONE, FAILED, LATER = 0, 3, 75
RENEW_PART = 0.25
#: How long a last word to the server is tried when the watcher is told to end.
FAREWELL_SECONDS = 3.0
#: Text and counts alone are saved this often: each save stays in the history.
SAVE_SECONDS = 600.0
_WAIT_CODES = ("lease-still-live", "blocked")
_CREDENTIAL_CODES = ("unauthorized", "forbidden")


class Stop(Exception):
    """HTCondor or a person has asked the watcher to end."""


class _Over(Exception):
    """There is nothing more to watch for this watcher; the text says why."""

    def __init__(self, text: str, exit_code: int = FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class Watcher:
    """Watches until the transfer is over or `patience_seconds` have passed (None: no limit)."""

    connect: Callable[[], LeaseClient]
    engine: Engine
    command: m.Acquire
    adopted: Adopted | None
    notice: Notice
    poll_seconds: float
    patience_seconds: float | None
    say: Callable[[str], None]
    #: Sleeps that long; raises Stop as soon as the watcher is to end.
    pause: Callable[[float], None]
    #: Who has submitted the task leaves it alone: the node is done, the subjob is not.
    leaves_alone: bool = False
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self._client = self.connect()
        self._until = (
            float("inf")
            if self.patience_seconds is None
            else self.clock.monotonic() + self.patience_seconds
        )
        self._lease: Lease | None = None
        self._saved = TransferRecord()
        self._saved_at = 0.0
        self._said: dict[str, str] = {}

    def run(self) -> int:
        """Watch; return the exit code: 0 done, 75 not yet, 3 failed, cancelled or taken over."""
        try:
            return self._watch() if self._acquire() else LATER
        except Stop:
            self._give_up("the watcher was told to end; the transfer goes on")
            return LATER
        except _Over as over:
            self.say(str(over))
            return over.exit_code
        finally:
            self.engine.backend.close()

    def save(self, record: TransferRecord) -> None:
        """Put a record on the server; raises ServerUnavailable, or ends the watcher."""
        self._renew(record.to_text())
        self._saved, self._saved_at = record, self.clock.monotonic()

    # ------------------------------------------------------------ the lease

    def _acquire(self) -> bool:
        """Take the lease; False when another has it for longer than this watcher lives."""
        while True:
            wait_seconds = self.poll_seconds
            try:
                self._lease = self._client.acquire(self.command)
                self._client.call(m.Enter(self._lease.fence, self._lease.nonce, PHASE))
                return True
            except ServerUnavailable as error:
                self._say_once("server", f"the lease server does not answer ({error}); waiting")
            except Refused as refused:
                if refused.code == "subjob-closed":
                    code = DONE if refused.outcome == "complete" else FAILED
                    raise _Over(f"{self.engine.subjob} is {refused.outcome}", code) from None
                if refused.code == "superseded-attempt":
                    raise _Over(f"a later watcher has {self.engine.subjob}") from None
                if refused.code not in _WAIT_CODES:
                    raise
                self._say_once("live", f"{self.engine.subjob}: {refused.detail}; waiting")
                wait_seconds = refused.retry_after_seconds or wait_seconds
            if self.clock.monotonic() + wait_seconds > self._until:
                return False
            self.pause(wait_seconds)

    def _renew(self, details: str | None = None) -> None:
        assert self._lease is not None
        try:
            self._lease, renewal = self._client.renew(self._lease, details)
        except Refused as refused:
            if refused.code in _CREDENTIAL_CODES:
                # The file may hold a new token by now.
                self._client = self.connect()
                raise ServerUnavailable(f"it refuses the token: {refused.detail}") from None
            raise _Over(f"the lease of {self.engine.subjob} is lost: {refused}") from None
        self._said.pop("server", None)
        if renewal.order == "cancel":
            raise _Over(self._cancel())
        if renewal.order == "stop":
            self._give_up("a later watcher takes over")
            raise _Over(f"a later watcher takes over {self.engine.subjob}")

    def _cancel(self) -> str:
        """End the task of a subjob that a person has cancelled, if it may be; return a sentence."""
        record = self._record
        if record.external_id is None:
            return f"{self.engine.subjob} was cancelled before a task was known"
        if record.is_adopted and not record.is_owned:
            return f"{self.engine.subjob} was cancelled; the adopted task is left alone"
        try:
            self.engine.backend.cancel(record.external_id)
        except TransferError as error:
            return f"task {record.external_id} could not be cancelled, do it by hand: {error}"
        return f"{self.engine.subjob} was cancelled, and with it task {record.external_id}"

    def _give_up(self, reason: str) -> None:
        if self._lease is not None:
            try:
                self._client.call(
                    m.Abandon(self._lease.fence, self._lease.nonce, reason),
                    give_up_after_seconds=FAREWELL_SECONDS,
                )
            except (Refused, ServerUnavailable):
                pass  # the lease then ends by itself

    # ------------------------------------------------------------ the transfer

    def _watch(self) -> int:
        assert self._lease is not None
        self._saved = read_record(self._lease.grant.details)
        is_alone = self.engine.backend.ends_with_watcher
        self._record = take_up(self._saved, self.adopted, is_alone=is_alone)
        while True:
            before = self._record.state
            verdict = self._advance()
            if self._record.state != before or verdict is not Verdict.WAIT:
                self.say(f"{self.engine.subjob}: {describe(self._record)}")
            self._note()
            if verdict is Verdict.DONE:
                return self._close(self._completion())
            if verdict is Verdict.FAILED:
                return self._close(self._failure())
            if verdict is Verdict.GO_ON:
                continue
            if self.leaves_alone and self._record.state == "submitted":
                self._flush()
                self._give_up("submitted; it is complete once it was checked or waived")
                return DONE
            if self.clock.monotonic() + self.poll_seconds > self._until:
                self._flush()
                self._give_up("not yet; the next watcher goes on")
                return LATER
            self._sleep(self.poll_seconds)

    def _advance(self) -> Verdict:
        try:
            self._record, verdict = self.engine.advance(self._record, self.save)
        except ServerUnavailable as error:
            # Nothing is submitted that is not on record first.
            self._say_once("server", f"the lease server does not answer ({error}); waiting")
            return Verdict.WAIT
        return verdict

    def _note(self) -> None:
        """Save what is worth it, then tell a person what they have to do."""
        record, saved = self._record, self._saved
        is_chatter = record == saved.with_(
            text=record.text, counts=record.counts, poll_errors=record.poll_errors
        )
        is_due = self.clock.monotonic() > self._saved_at + SAVE_SECONDS
        if record != saved and (is_due or not is_chatter):
            self._try_save(record)
        if record.action and record.noticed != record.action:
            told = record.with_(noticed=record.action)
            # Saved first: a watcher that dies here tells nobody, but no two tell the same.
            if self._try_save(told):
                self._record = told
                self._tell(record.action)

    def _tell(self, action: str) -> None:
        subject = f"htlease: {self.engine.subjob} waits for you"
        self.say(f"{self.engine.subjob} waits for a person: {action}")
        problem = send_notice(self.notice, subject, action)
        if problem:
            self.say(problem)

    def _try_save(self, record: TransferRecord) -> bool:
        try:
            self.save(record)
        except ServerUnavailable as error:
            self._say_once("server", f"the lease server does not answer ({error}); going on")
            return False
        return True

    def _flush(self) -> None:
        if self._record != self._saved:
            self._try_save(self._record)

    def _sleep(self, seconds: float) -> None:
        assert self._lease is not None
        renew_seconds = self._lease.ttl_seconds * RENEW_PART
        until = self.clock.monotonic() + seconds
        while (left := until - self.clock.monotonic()) > 0:
            self.pause(min(left, renew_seconds))
            try:
                self._renew()
            except ServerUnavailable as error:
                self._say_once("server", f"the lease server does not answer ({error}); going on")

    # ------------------------------------------------------------ the end

    def _completion(self) -> list[m.Command]:
        lease, record = self._held(), self._record
        artifacts = {"task": record.external_id or "", **record.counts}
        return [m.Complete(lease.fence, lease.nonce, PHASE, artifacts)]

    def _failure(self) -> list[m.Command]:
        lease, why = self._held(), self._record.text
        return [
            m.Fail(lease.fence, lease.nonce, PHASE, why),
            m.Settle(lease.fence, lease.nonce, "failed", why),
        ]

    def _held(self) -> Lease:
        assert self._lease is not None
        return self._lease

    def _close(self, commands: list[m.Command]) -> int:
        """Say how it ended, until the server has it: the node must not end before."""
        while True:
            try:
                if self._record != self._saved:
                    self.save(self._record)
                for command in commands:
                    self._client.call(command)
                return DONE if isinstance(commands[-1], m.Complete) else FAILED
            except ServerUnavailable as error:
                self._say_once("server", f"the lease server does not answer ({error}); waiting")
            except Refused as refused:
                raise _Over(f"the end cannot be recorded: {refused}") from None
            if self.clock.monotonic() + self.poll_seconds > self._until:
                return LATER
            self.pause(self.poll_seconds)

    def _say_once(self, what: str, text: str) -> None:
        if self._said.get(what) != text:
            self._said[what] = text
            self.say(text)


def describe(record: TransferRecord) -> str:
    """Return a line on where a transfer stands."""
    task = record.external_id or "no task yet"
    adopted = ", adopted" if record.is_adopted else ""
    return f"{record.state} (task {task}{adopted}) {record.text}".rstrip()
