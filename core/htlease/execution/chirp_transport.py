"""Updates without a network: a journal in delayed chirp attributes, which the agent reads.

The agent has taken the lease for this start before its claim was activated, and keeps it as long
as the schedd says that the start runs. So every call is answered here at once, from the grant in
the job ad: nobody can say no any more, and nobody can tell the payload to stop. What needs a live
connection to be true, an exclusive phase, is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from htlease.condor import chirp
from htlease.condor.private_files import make_private_folder, opened_own
from htlease.errors import BadConfig
from htlease.execution.job import find_job
from htlease.json_text import json_from
from htlease.rules.plan import PhaseSpec, phases_left
from htlease.wire.chirp_journal import (
    GRANT_ATTRIBUTE,
    Entry,
    Journal,
    JournalFull,
    Unreadable,
    to_attributes,
    unpack,
)
from htlease.wire.protocol import plan_from
from htlease.wire.transport import Answer, NoAnswer

#: Beside the wrapper's own folder, which goes with the wrapper; HTCondor transfers no folders.
FOLDER = ".htlease-chirp"
_TTL_SECONDS = 600.0
#: The payload's own calls write here beside the wrapper, each for some milliseconds.
_LOCK_SECONDS = 10.0
_LOCK_POLL_SECONDS = 0.02
#: Details that were saved anew stay in it; what is sent has a much lower limit.
_JOURNAL_MAX_BYTES = 64 << 20


class ChirpTransport:
    """Answers from the grant, and writes down what the agent is to post."""

    def __init__(self, sandbox: Path, environ: Mapping[str, str]) -> None:
        """Find the grant of this start; raises BadConfig when there is none."""
        ad = find_job(environ).ad
        text = ad.text(GRANT_ATTRIBUTE) if ad else None
        if text is None:
            raise BadConfig(
                f"the server is chirp: but the job ad has no {GRANT_ATTRIBUTE}; the access point "
                "needs `htlease agent` and its shadow hook"
            )
        try:
            self._grant = unpack(text)
            self._fence = int(self._grant["fence"])
        except (Unreadable, KeyError, TypeError, ValueError) as error:
            raise BadConfig(f"{GRANT_ATTRIBUTE} in the job ad cannot be read: {error}") from None
        self._config = chirp.config_path(environ, sandbox)
        self._folder = sandbox / FOLDER

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        """Write a command into the journal and answer it; raises BadConfig and NoAnswer."""
        words = path.split("/")
        call = words[-1]
        if method != "POST" or body is None:
            raise NoAnswer("chirp: only takes updates")
        fields = {
            name: value
            for name, value in body.items()
            if name not in ("fence", "nonce", "request_id", "client_at") and value is not None
        }
        if call == "acquire":
            return Answer(200, self._acquired(fields))
        if call == "renew" and not fields:
            return Answer(200, _RENEWED)  # the agent renews while the start runs
        if call == "enter":
            fields["is_underway"] = True  # it begins before any server can hold it back
        phase = unquote(words[-2]) if "phases" in words[-3:-1] else None
        self._write(call, phase, str(body.get("client_at", "")), fields)
        if call == "renew":
            return Answer(200, _RENEWED)
        if phase is not None:
            return Answer(200, {"name": phase, "details": self._details_of(phase)})
        return Answer(200, {"status": "exited", "fence": self._fence, "outcome": None})

    def _acquired(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        grant = {**self._grant, "expires_in_seconds": fields.get("ttl_seconds", _TTL_SECONDS)}
        if "plan" not in fields:
            return grant
        plan = plan_from(fields["plan"])
        exclusive = [spec.name for spec in plan.phases if spec.exclusive]
        if exclusive:
            raise BadConfig(
                f"phase {exclusive[0]} is exclusive, which needs a live connection to the lease "
                "server, and this execution point has none (the server is chirp:); run the job "
                "where there is one, or give the phase up being exclusive"
            )
        granted = {phase["name"]: phase for phase in self._grant["phases"]}
        if list(granted) != [spec.name for spec in plan.phases]:
            # The server has not seen this plan yet; it is the first thing that the agent posts.
            self._write("acquire", None, "", {"plan": fields["plan"]})
        records = {name: _Record(phase) for name, phase in granted.items()}
        left = [spec.name for spec in plan.phases] if plan.profile else phases_left(plan, records)
        phases = [_to_run(spec, granted.get(spec.name), spec.name in left) for spec in plan.phases]
        return {**grant, "phases": phases, "phase": left[0] if left else None}

    def _details_of(self, phase: str) -> str | None:
        is_of_phase = self._grant.get("details_phase") == phase
        return self._grant.get("details") if is_of_phase else None

    def _write(
        self, call: str, phase: str | None, client_at: str, fields: Mapping[str, Any]
    ) -> None:
        try:
            with self._journal() as file:
                journal = _read(file, self._fence)
                entry = Entry(len(journal) + 1, call, phase, client_at, fields)
                journal.append(entry)
                attributes = to_attributes(Journal(self._fence, _worth_sending(journal)))
                file.seek(0, os.SEEK_END)
                file.write(json.dumps([self._fence, *_row(entry)]) + "\n")
        except JournalFull as error:
            raise NoAnswer(f"the journal of this start is full ({error})") from None
        except OSError as error:
            raise NoAnswer(f"{self._folder}: {error.strerror}") from None
        except (ValueError, TypeError, IndexError):
            raise NoAnswer(f"{self._folder}: there is something else than a journal") from None
        # The journal stands: what the starter does not take now goes with the next update.
        if self._config is not None:
            chirp.set_delayed(self._config, attributes)

    @contextmanager
    def _journal(self) -> Iterator[Any]:
        """Open the file that this start's wrapper and its payload share, one at a time."""
        make_private_folder(self._folder)
        descriptor = opened_own(self._folder / "journal", os.O_RDWR | os.O_APPEND)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            _lock(file)
            if os.fstat(descriptor).st_size > _JOURNAL_MAX_BYTES:
                raise JournalFull(f"more than {_JOURNAL_MAX_BYTES} bytes")
            file.seek(0)
            yield file


def _lock(file: Any) -> None:
    """Lock a journal; raises OSError when somebody has it who does not let go."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(_LOCK_POLL_SECONDS)


class _Record:
    """What the grant says of a phase that was worked on before."""

    def __init__(self, phase: Mapping[str, Any]) -> None:
        self.completed_fence: int | None = 0 if phase.get("completed") else None


def _to_run(spec: PhaseSpec, known: Mapping[str, Any] | None, run: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "restart": spec.restart,
        "exclusive": spec.exclusive,
        "needs": list(spec.needs),
        "run": run,
        "completed": bool(known and known.get("completed")),
        "entries": known.get("entries", 0) if known else 0,
    }


_RENEWED = {"expires_in_seconds": _TTL_SECONDS, "order": "continue", "outcome": None}


def _row(entry: Entry) -> list[Any]:
    return [entry.number, entry.call, entry.phase, entry.client_at, dict(entry.fields)]


def _read(file: Any, fence: int) -> list[Entry]:
    """Return what this start has written; an earlier one may have left its journal here."""
    rows = [json_from(line) for line in file if line.endswith("\n")]
    return [Entry(*row[1:]) for row in rows if row[0] == fence]


def _worth_sending(journal: list[Entry]) -> tuple[Entry, ...]:
    """Leave out details that were saved anew."""
    last = max((entry.number for entry in journal if entry.call == "renew"), default=0)
    return tuple(
        replace(entry, fields={}) if entry.call == "renew" and entry.number < last else entry
        for entry in journal
    )
