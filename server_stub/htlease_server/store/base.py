"""What the server asks of a store, and the rows that go in and out.

A store keeps rows and makes a write set of them durable at once; it knows no lease rule. The suite
`tests/contract/test_store.py` says when a store is good enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from htlease.errors import HTLeaseError
from htlease.rules.attempt import SubjobKey


class StoreFailed(HTLeaseError):
    """The store could not keep a write set and has kept nothing of it."""


class Conflict(StoreFailed):
    """Another server was faster; taking the batch again leads on."""


class CommitOutcomeUnknown(StoreFailed):
    """The store may or may not have kept a write set; it cannot be asked now."""


class Displaced(CommitOutcomeUnknown):
    """The store is not this server's any more, which has to stop at once."""


class Unstorable(StoreFailed):
    """The store takes no such value, whoever in the write set it comes from."""


class SubjobRow(NamedTuple):
    """A subjob as stored: its snapshot, and columns for lists."""

    id: int
    workflow_id: int
    name: str
    status: str
    fence: int
    phase: str | None
    attempt_number: int
    attempt_id: str | None
    host: str | None
    seq: int
    updated_at: float
    snapshot: bytes
    deadline_at: float
    ttl_seconds: float


class ListedRow(NamedTuple):
    """A subjob in a list: `SubjobRow` without the snapshot, with its workflow's name."""

    id: int
    workflow: str
    name: str
    status: str
    deadline_at: float
    ttl_seconds: float
    fence: int
    phase: str | None
    attempt_number: int
    attempt_id: str | None
    host: str | None
    updated_at: float


class HistoryRow(NamedTuple):
    """One event of a subjob."""

    subjob_id: int
    seq: int
    at: float
    event: str
    fence: int | None
    actor: str
    request_id: str
    #: Of call and body, for an enroll with the epoch behind it; only on the first event of an
    #: accepted request.
    digest: bytes | None
    client_at: str | None
    #: The relays that passed the request on, as HTTP's Via names them.
    via: str | None
    #: The event's fields as JSON.
    data: str


class WorkflowRow(NamedTuple):
    """A workflow as stored; `labels`, `plan` and `structure` are JSON."""

    id: int
    name: str
    created_at: float
    template: int
    labels: str
    plan: str | None
    structure: str | None
    request_id: str | None
    digest: bytes | None
    #: To whom it belongs; None where nobody knows any more.
    made_by: str | None = None


class AuditRow(NamedTuple):
    """Something that was done to the site itself; see `engine.site.audit`."""

    at: float
    kind: str
    actor: str
    workflow: str | None
    subjob: str | None
    token_id: str | None
    via: str | None
    #: What else is to be known of it, as JSON.
    data: str


class Run(NamedTuple):
    """One run of a server: from its start to its last sign of life."""

    started_at: float
    alive_at: float


class MaintenanceRow(NamedTuple):
    """An announced time in which no lease runs out, whether or not a server runs."""

    started_at: float
    until_at: float
    reason: str | None
    actor: str


class FlagRow(NamedTuple):
    """A flag that somebody has lowered or raised; one that nobody has is up."""

    name: str
    is_up: int
    reason: str | None
    actor: str
    changed_at: float


class ClosedSubjob(NamedTuple):
    """A subjob that is to be deleted, of a workflow that is closed."""

    id: int
    name: str
    status: str
    fence: int


class DeletedSubjob(NamedTuple):
    """A subjob that is deleted, with the IDs by which it was found."""

    id: int
    workflow_id: int
    known_ids: Sequence[str]
    events: int


@dataclass
class WriteSet:
    """What one transaction makes durable."""

    workflows: list[WorkflowRow] = field(default_factory=list)
    subjobs: list[SubjobRow] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)
    #: (ID text, subjob's row ID)
    known_ids: list[tuple[str, int]] = field(default_factory=list)
    #: (subjob's row ID, deadline_at, ttl_seconds) of leases whose deadline has moved.
    leases: list[tuple[int, float, float]] = field(default_factory=list)
    #: (workflow's row ID, status) -> by how many the subjobs with that status change.
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    #: When the counts change.
    at: float = 0.0
    #: New windows, and changed ones; a window is known by its start.
    maintenance: list[MaintenanceRow] = field(default_factory=list)
    #: The floor is raised to this, if it is not above it already.
    fence_floor: int = 0
    #: Runs of servers over a store that is moved here.
    runs: list[Run] = field(default_factory=list)
    #: Flags as they are from now on; a flag is known by its name.
    flags: list[FlagRow] = field(default_factory=list)
    audit_entries: list[AuditRow] = field(default_factory=list)
    deleted: list[DeletedSubjob] = field(default_factory=list)
    #: As `counts`, by what is deleted; that is no change of a workflow.
    deleted_counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    #: Present when `leases` holds every renewal up to this instant.
    alive: Run | None = None

    def count_rows(self) -> list[tuple[int, str, int, float]]:
        """Return (workflow's row ID, status, by how many, when that changed it)."""
        by_how_many = self.counts.copy()
        by_how_many.update(self.deleted_counts)
        return [
            (*of, count, self.at if of in self.counts else 0.0)
            for of, count in sorted(by_how_many.items())
        ]

    @property
    def has_changes(self) -> bool:
        """Tell whether there is more in it than deadlines and signs of life."""
        rows = (
            self.subjobs,
            self.workflows,
            self.maintenance,
            self.flags,
            self.audit_entries,
            self.deleted,
        )
        return any(rows)


class Reader(Protocol):
    """Look-ups; used by one thread at a time."""

    def workflow(self, name: str) -> WorkflowRow | None:
        """Return a workflow by name."""

    def workflows(self, after: str, limit: int) -> Sequence[WorkflowRow]:
        """Return the workflows that follow a name, in the order of their names."""

    def subjob(self, key: SubjobKey) -> SubjobRow | None:
        """Return a subjob with its snapshot."""

    def subjobs(self, workflow_id: int, after: str, limit: int) -> Sequence[ListedRow]:
        """Return the subjobs of a workflow that follow a name, in the order of their names."""

    def subjobs_known_as(self, id_text: str, limit: int) -> Sequence[ListedRow]:
        """Return the subjobs that were ever known by an ID."""

    def counts(self, workflow_id: int) -> dict[str, int]:
        """Return how many subjobs of a workflow have each stored status."""

    def totals(self) -> dict[str, int]:
        """Return how many subjobs of the whole store have each stored status."""

    def closed_workflows(
        self, before: float, after: int, limit: int
    ) -> Sequence[tuple[int, str, int]]:
        """Return (row ID, name, subjobs) of workflows that have been closed since `before`.

        Those with a higher row ID than `after`, in order; without those that have no subjobs.
        """

    def closed_subjobs(self, workflow_id: int, limit: int) -> Sequence[ClosedSubjob]:
        """Return some closed subjobs of a workflow."""

    def nth_held(self, workflow_id: int, after: int, nth: int) -> int | None:
        """Return the nth row ID after another one of a held subjob; None when there are fewer."""

    def overdue(
        self, workflow_id: int, now: float, after: int = 0, last: int | None = None
    ) -> Sequence[tuple[int, str, float, float]]:
        """Return (row ID, status, deadline, ttl) of held leases past their stored deadline.

        Those with row IDs above `after`, up to `last`.
        """

    def history(self, subjob_id: int, after: int, limit: int) -> Sequence[HistoryRow]:
        """Return the events of a subjob with a higher `seq`, in order."""

    def history_of(self, subjob_id: int, events: Sequence[str]) -> Sequence[HistoryRow]:
        """Return all events of some kinds, in order."""

    def requests(self, subjob_id: int, limit: int) -> Sequence[tuple[str, bytes]]:
        """Return (request ID, digest) of the requests accepted last, oldest first."""

    def refused(self, subjob_id: int, request_id: str) -> HistoryRow | None:
        """Return the record of a refused acquire that came under a request ID."""

    def flags(self) -> Sequence[FlagRow]:
        """Return all flags that were ever changed, in the order of their names."""

    def audit_entries(
        self, kind: str | None, after: int, limit: int
    ) -> Sequence[tuple[int, AuditRow]]:
        """Return the audit entries with a higher ID, of one kind or all, in order."""

    def revocations(self, since: float) -> Sequence[AuditRow]:
        """Return the audit entries that revoke tokens from an instant on."""

    def close(self) -> None:
        """Let go of the store."""


class Store(Reader, Protocol):
    """What the one writer of a store needs that is its own."""

    #: What a person calls this store, e.g. its path.
    name: str

    def begin_run(self, now: float) -> Sequence[Run]:
        """Record that a server starts; return the runs before it, oldest first."""

    def maintenance(self) -> Sequence[MaintenanceRow]:
        """Return all maintenance windows, oldest first."""

    def fence_floor(self) -> int:
        """Return the fence above which every subjob begins that this store does not know."""

    def next_ids(self) -> tuple[int, int]:
        """Return the first row IDs that are free, for workflows and for subjobs."""

    def write(self, write_set: WriteSet) -> None:
        """Make a write set durable, wholly or not at all; raises StoreFailed."""

    def stamp(self, run: Run) -> None:
        """Note beside the store how far a run has got."""

    def check_in_place(self) -> None:
        """Raise Displaced when the store is not where it was any more; takes microseconds."""

    def reader(self) -> Reader:
        """Return a new connection for look-ups that sees what has been written."""
