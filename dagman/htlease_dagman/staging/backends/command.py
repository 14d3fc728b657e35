"""The back-end for any transfer tool with a command to submit and one to poll; runs them on the AP.

Which words and exit codes mean what comes from the staging file, for no two tools agree. A submit
command that fails in an unknown way may have submitted: that is looked up, never assumed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from re import Pattern

from htlease_dagman.staging.transfer import (
    CannotFind,
    NeedsPerson,
    Place,
    Refused,
    ServiceUnavailable,
    State,
    TaskStatus,
    Transfer,
)

CALL_SECONDS_DEFAULT = 60.0
#: EX_TEMPFAIL and EX_NOPERM of sysexits(3).
EXIT_RETRYABLE, EXIT_NO_PERMISSION = 75, 77
#: In which order a poll's output is searched: what asks for a person may name other states too.
SEARCHED = ("needs_action", "unknown", "done", "retryable", "failed", "running")
_STATES = {
    "needs_action": State.NEEDS_ACTION,
    "unknown": State.UNKNOWN,
    "done": State.DONE,
    "retryable": State.RETRYABLE,
    "failed": State.FATAL,
    "running": State.RUNNING,
}
_LAST_WORDS = 300


@dataclass(frozen=True)
class CommandRules:
    """What the staging file says about a tool."""

    submit: tuple[str, ...]
    poll: tuple[str, ...]
    cancel: tuple[str, ...] = ()
    find: tuple[str, ...] = ()
    #: Fails for a place that cannot be used.
    check: tuple[str, ...] = ()
    #: Finds the task's ID in what submit and find print; without it, their last line is the ID.
    id: Pattern[str] | None = None
    #: Meaning (see SEARCHED) -> expression looked for in what poll and submit print.
    words: Mapping[str, Pattern[str]] = field(default_factory=dict)
    #: Exit code of poll or submit -> meaning.
    exits: Mapping[int, str] = field(default_factory=dict)
    #: What a person has to do, in place of the tool's own words.
    action: str | None = None
    submits_once: bool = False
    call_seconds: float = CALL_SECONDS_DEFAULT


@dataclass(frozen=True)
class _Ended:
    exit_code: int
    printed: str
    complained: str

    @property
    def text(self) -> str:
        return f"{self.printed}\n{self.complained}"

    @property
    def last_line(self) -> str:
        return _last_line(self.text)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-_LAST_WORDS:] if lines else ""


class CommandBackend:
    """Runs the commands of the rules, without a shell."""

    ends_with_watcher = False

    def __init__(self, rules: CommandRules) -> None:
        self._rules = rules
        self.submits_once = rules.submits_once

    def reserve(self, key: str) -> str | None:
        """Nothing: the key itself is handed to the submit command."""
        return None

    def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
        """Run the submit command."""
        ended = self._run(self._rules.submit, list_of(transfer), key=key, **ends_of(transfer))
        if ended.exit_code == 0:
            return self._id_in(ended) or self._no_id(ended)
        meaning = self._meaning(ended)
        said = ended.last_line or f"exit code {ended.exit_code}"
        if meaning == "needs_action":
            raise NeedsPerson(self._rules.action or said)
        if meaning in ("retryable", "failed"):
            raise Refused(said, is_fatal=meaning == "failed")
        raise ServiceUnavailable(f"submit ended with {ended.exit_code}: {said}")

    def poll(self, external_id: str) -> TaskStatus:
        """Run the poll command."""
        ended = self._run(self._rules.poll, id=external_id)
        meaning = self._meaning(ended)
        if meaning is None:
            unclear = f"poll ended with {ended.exit_code} and said {ended.last_line or 'nothing'}"
            return TaskStatus(State.RUNNING, unclear, is_unclear=True)
        is_for_person = meaning == "needs_action" and self._rules.action
        text = self._rules.action if is_for_person else ended.last_line
        return TaskStatus(_STATES[meaning], text or "")

    def cancel(self, external_id: str) -> None:
        """Run the cancel command, if there is one."""
        if self._rules.cancel:
            ended = self._run(self._rules.cancel, id=external_id)
            if ended.exit_code != 0:
                raise ServiceUnavailable(f"cancel ended with {ended.exit_code}: {ended.last_line}")

    def find_by_key(self, key: str, reservation: str | None = None) -> str | None:
        """Run the find command: exit 0 and no output means that there is no such task."""
        if not self._rules.find:
            raise CannotFind("there is no find command")
        ended = self._run(self._rules.find, key=key)
        if ended.exit_code != 0:
            if self._meaning(ended) == "unknown":
                return None
            raise ServiceUnavailable(f"find ended with {ended.exit_code}: {ended.last_line}")
        return self._id_in(ended)

    def check(self, place: Place, has_to_exist: bool) -> str | None:
        """Run the check command, if there is one; what it cannot find may be made later."""
        if not self._rules.check:
            return None
        ended = self._run(self._rules.check, path=place.path)
        if ended.exit_code == 0 or (self._meaning(ended) == "unknown" and not has_to_exist):
            return None
        return f"{place.path} cannot be used: {ended.last_line or f'exit code {ended.exit_code}'}"

    def close(self) -> None:
        """Nothing is kept open."""

    def _id_in(self, ended: _Ended) -> str | None:
        if self._rules.id is None:
            return _last_line(ended.printed) or None
        found = self._rules.id.search(ended.text)
        return found[1] if found else None

    def _no_id(self, ended: _Ended) -> str:
        raise ServiceUnavailable(
            f"submit ended well but named no task: {ended.last_line or 'no output'}"
        )

    def _meaning(self, ended: _Ended) -> str | None:
        if ended.exit_code in self._rules.exits:
            return self._rules.exits[ended.exit_code]
        for meaning in SEARCHED:
            words = self._rules.words.get(meaning)
            if words is not None and words.search(ended.text):
                return meaning
        return None

    def _run(self, template: Sequence[str], given: str = "", **values: str) -> _Ended:
        argv = filled(template, values)
        try:
            done = subprocess.run(
                argv,
                input=given,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._rules.call_seconds,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise ServiceUnavailable(
                f"{argv[0]} did not end in {self._rules.call_seconds:g} s"
            ) from None
        except OSError as error:
            raise NeedsPerson(f"make {argv[0]} runnable here: {error.strerror}") from None
        return _Ended(done.returncode, done.stdout, done.stderr)


#: What may stand in braces in the words of a command. Standard input is the list of all items.
PLACEHOLDERS = {
    "run": ("from", "to", "source", "destination"),
    "submit": ("key", "from", "to", "source", "destination"),
    "poll": ("id",),
    "cancel": ("id",),
    "find": ("key",),
    "check": ("path",),
}
BRACES = re.compile(r"\{([a-z_]+)\}")


def filled(template: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the words of a command with what stands in braces replaced."""
    # Braces with anything else in them belong to the tool.
    return [BRACES.sub(lambda match: values.get(match[1], match[0]), word) for word in template]


def ends_of(transfer: Transfer) -> dict[str, str]:
    """Return what the places of a transfer, and its first item, are in braces."""
    source, destination = transfer.pairs()[0]
    return {
        "from": transfer.source.path,
        "to": transfer.destination.path,
        "source": source,
        "destination": destination,
    }


def list_of(transfer: Transfer) -> str:
    """Return the list of items that a command gets on its standard input."""
    return "".join(f"{source}\t{destination}\n" for source, destination in transfer.pairs())
