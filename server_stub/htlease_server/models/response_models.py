"""The documents about subjobs and workflows, as types: mypy holds the code to them.

Each class is a JSON object with these members and no others; `response_schemas` makes of them what
`/openapi.json` says. Those about the site are in `admin_models`; replies to commands, and the
events of a history, in `htlease.rules.messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import msgspec

from htlease.rules import messages as m
from htlease.rules.plan import RESTARTS, Plan
from htlease.rules.rollup import EMPTY, PARTIAL, ROLLUP_ORDER
from htlease.rules.state import Status


def one_of(*names: str) -> msgspec.Meta:
    """Return what says that a text is one of these."""
    return msgspec.Meta(extra_json_schema={"enum": list(names)})


#: What a text is that is an instant: RFC 3339 in UTC.
INSTANT_FORMAT = {"format": "date-time", "pattern": "Z$"}
Instant = Annotated[str, msgspec.Meta(extra_json_schema=INSTANT_FORMAT)]
Count = Annotated[int, msgspec.Meta(ge=0)]
StatusName = Annotated[str, one_of(*(status.value for status in Status))]
Outcome = Annotated[str, one_of(*m.OUTCOMES)]
#: Why a lease was granted: it was the first, how the one before had ended, or why it need not
#: have; or nobody got it, so that no attempt from before a restore can write.
WHY = (
    *("first", "same-slot", "immediate", "expired"),
    *("abandoned", "exited", "waiting", "failed", "restored"),
)
#: How a grant ended.
ENDS = ("abandoned", "closed", "exited", "expired", "superseded")
#: What closed a subjob.
CLOSED_BY = (
    *("cancelled", "committed", "last-phase", "nothing-left", "all-back"),
    *("settled", "state", "walltime"),
)


class SubjobSummary(TypedDict):
    """A subjob in a list."""

    workflow: str
    subjob: str
    status: StatusName
    outcome: Outcome | None
    phase: str | None
    attempt_number: Count
    attempt_id: str | None
    fence: Count
    host: str | None
    #: None unless somebody holds a lease that has not run out.
    expires_in_seconds: Annotated[float, msgspec.Meta(ge=0)] | None
    updated_at: Instant


class PhaseDocument(TypedDict):
    """A phase of a subjob's plan, and what is known of it."""

    name: str
    restart: Annotated[str, one_of(*RESTARTS)]
    exclusive: bool
    #: A new attempt would run it.
    run: bool
    entries: Count
    entered_at: Instant | None
    entered_fence: Count | None
    completed_at: Instant | None
    completed_fence: Count | None
    failed_at: Instant | None
    failed_fence: Count | None
    reason: str | None
    exit_code: int | None
    artifacts: Mapping[str, str]
    has_details: bool


class Submission(TypedDict):
    """A submission that somebody announced, or whose first start was seen."""

    epoch: Count
    global_job_id: str | None
    retry: int | None
    links: Mapping[str, str]
    at: Instant


class AttemptPhase(TypedDict):
    """One time that an attempt entered a phase."""

    name: str
    entered_at: Instant
    completed_at: Instant | None
    failed_at: Instant | None


class Attempt(TypedDict):
    """One grant of a subjob's lease."""

    attempt_number: Count
    attempt_id: str
    fence: Count
    kind: Annotated[str, one_of(*m.KINDS)]
    epoch: Count
    host: str | None
    slot: str | None
    machine: str | None
    why: Annotated[str, one_of(*WHY)]
    granted_at: Instant
    ended_at: Instant | None
    end: Annotated[str, one_of(*ENDS)] | None
    exit_code: int | None
    exit_signal: int | None
    reason: str | None
    phases: list[AttemptPhase]


class Closing(TypedDict):
    """How a subjob was closed last."""

    outcome: Outcome
    by: Annotated[str, one_of(*CLOSED_BY)]
    reason: str | None
    at: Instant


class StateDocument(TypedDict):
    """What only the document of one subjob has of its state."""

    epoch: Count
    plan: Plan | None
    recalled_by: str | None
    job_hold: m.JobHeld | None
    removed_jobs: tuple[str, ...]
    exit_code: int | None
    exit_signal: int | None
    phases: list[PhaseDocument]
    details: str | None
    details_phase: str | None


class SubjobDocument(SubjobSummary, StateDocument):
    """Everything known of one subjob."""

    submissions: list[Submission]
    attempts: list[Attempt]
    closing: Closing | None


class Subjobs(TypedDict):
    """The subjobs that were ever known by an ID."""

    subjobs: list[SubjobSummary]


class EventHead(TypedDict):
    """What is known of every event of a history."""

    seq: Annotated[int, msgspec.Meta(ge=1)]
    at: Instant
    actor: str
    request_id: str
    client_at: str | None
    #: The relays through which the request came, as HTTP's Via names them.
    via: str | None


class HistoryPage(TypedDict):
    """Some of what happened to a subjob, in order; `next` is for `after`."""

    events: list[
        Annotated[
            dict[str, Any],
            msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Event"}),
        ]
    ]
    next: int | None


class WorkflowSummary(TypedDict):
    """A workflow in a list."""

    workflow: str
    state: Annotated[
        str, one_of(EMPTY, PARTIAL, *dict.fromkeys(state for _, state in ROLLUP_ORDER))
    ]
    #: Status -> how many subjobs have it.
    counts: dict[StatusName, Annotated[int, msgspec.Meta(ge=1)]]
    #: When it was looked at which leases have lapsed; None: not yet, they count as held.
    lapsed_counted_at: Instant | None
    labels: dict[str, str]
    template: bool
    created_at: Instant
    made_by: str | None


class WorkflowDocument(WorkflowSummary):
    """A workflow with a page of its subjobs; `next` is for `cursor`."""

    plan: Plan | None
    structure: Any
    subjobs: list[SubjobSummary]
    next: str | None


class Workflows(TypedDict):
    """A page of workflows; `next` is for `cursor`."""

    workflows: list[WorkflowSummary]
    next: str | None


class Window(TypedDict):
    """A time in which no lease runs out."""

    started_at: Instant
    until_at: Instant
    is_open: bool
    #: It is to begin yet, and until then nothing is different.
    is_announced: bool
    reason: str | None
    actor: str


class Maintenance(TypedDict):
    """All such times, newest first, the one that it is now, and the one that begins next."""

    open: Window | None
    next: Window | None
    windows: list[Window]


class FlagDocument(TypedDict):
    """A flag that somebody has lowered or raised."""

    name: str
    is_up: bool
    reason: str | None
    actor: str
    changed_at: Instant


class Flags(TypedDict):
    """Flags that were ever changed."""

    flags: list[FlagDocument]
