"""Plain values between caller, rules and store: commands, events, answers.

Commands are imperative, events past tense, rejections say the fact. Instants are seconds since
1970 on the server's clock and become RFC 3339 only on the wire.
"""

from htlease.rules.commands import (
    ARTIFACTS_MAX,
    DETAILS_MAX_BYTES,
    KINDS,
    LABEL_MAX_CHARS,
    OBSERVATIONS,
    OUTCOMES,
    TEXT_MAX_CHARS,
    Abandon,
    Acquire,
    Cancel,
    Command,
    Commit,
    Complete,
    Ended,
    Enroll,
    Enter,
    Exited,
    Fail,
    FencedCommand,
    Observed,
    Renew,
    Settle,
    nonce_digest,
)
from htlease.rules.decisions import (
    STATUS_OF_CODE,
    Accepted,
    Decision,
    Enrolled,
    Grant,
    PhaseRecord,
    PhaseToRun,
    Rejection,
    Renewal,
    Reply,
    SubjobReply,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from htlease.rules.events import (
        AttemptExited,
        AttemptRefused,
        DetailsSaved,
        Event,
        JobEnded,
        JobHeld,
        JobReleased,
        JobRemoved,
        LeaseAbandoned,
        LeaseAcquired,
        LeaseRecalled,
        LeaseRenewed,
        PhaseCompleted,
        PhaseEntered,
        PhaseFailed,
        PlanChanged,
        SubjobClosed,
        SubmissionEnrolled,
        SubmissionSeen,
        WriteRefused,
    )

__all__ = [
    "ARTIFACTS_MAX",
    "DETAILS_MAX_BYTES",
    "KINDS",
    "LABEL_MAX_CHARS",
    "OBSERVATIONS",
    "OUTCOMES",
    "STATUS_OF_CODE",
    "TEXT_MAX_CHARS",
    "Abandon",
    "Accepted",
    "Acquire",
    "AttemptExited",
    "AttemptRefused",
    "Cancel",
    "Command",
    "Commit",
    "Complete",
    "Decision",
    "DetailsSaved",
    "Ended",
    "Enroll",
    "Enrolled",
    "Enter",
    "Event",
    "Exited",
    "Fail",
    "FencedCommand",
    "Grant",
    "JobEnded",
    "JobHeld",
    "JobReleased",
    "JobRemoved",
    "LeaseAbandoned",
    "LeaseAcquired",
    "LeaseRecalled",
    "LeaseRenewed",
    "Observed",
    "PhaseCompleted",
    "PhaseEntered",
    "PhaseFailed",
    "PhaseRecord",
    "PhaseToRun",
    "PlanChanged",
    "Rejection",
    "Renew",
    "Renewal",
    "Reply",
    "Settle",
    "SubjobClosed",
    "SubjobReply",
    "SubmissionEnrolled",
    "SubmissionSeen",
    "WriteRefused",
    "nonce_digest",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load the events for those who record or read them; a holder's start need not wait."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from htlease.rules import events

        value = globals()[name] = getattr(events, name)
        return value
