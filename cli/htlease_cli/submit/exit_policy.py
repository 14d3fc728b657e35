"""What HTCondor does when the wrapper ends with a code of its own; lines of a submit file, pure.

75 means: no lease, or no server, in the time allowed. Such a job runs again, and is held with a
reason where it would leave the queue: it never goes without its payload having run. 78 means what
somebody has to mend, such as a token that has expired; such a job is held at once. What the user
says of `on_exit_remove`, `max_retries` and so on stands, under whatever name: each line takes the
user's own value in.
"""

from __future__ import annotations

#: The wrapper tells by chirp which start of the job its payload ran in, so that a payload's own 75
#: is not taken for the wrapper's, nor its 78. Without chirp it is: that job runs ten times, or not
#: again, and is held.
PAYLOAD_START = "ChirpHTLeasePayloadStart"
#: The start in which the payload's program could not be run: HTCondor would have held the job.
NOT_STARTED = "ChirpHTLeaseNotStarted"
TRIES = 10

#: Attributes of ours, for short.
_TRY_LATER, _REFUSED, _NOT_STARTED = "HTLeaseTryLater", "HTLeaseRefused", "HTLeaseNotStarted"
_TRY_LATER_REASON = (
    '"htlease: no lease, or no answer of the lease server, in the time allowed; when the server '
    'answers again: condor_release"'
)
_REFUSED_REASON = (
    '"htlease: no lease can be had; standard error says what has to be mended, such as a token '
    'that has expired (htlease token renew writes new ones); then condor_release"'
)
_NOT_STARTED_REASON = (
    f'strcat("htlease: the program cannot be run: ", {NOT_STARTED}Why ?: HTLeaseProgram)'
)
#: 79 is the wrapper's for: had its wall time.
_OUT_OF_TIME = "ExitCode =?= 79"
_OUT_OF_TIME_REASON = '"walltime: the job has had its time; release it for the next"'
#: The hold codes of allowed_job_duration and allowed_execute_duration. Source: measured on 23.9.6
#: and 25.14.1.
_HELD_BY_LIMIT = "JobStatus == 5 && (HoldReasonCode == 46 || HoldReasonCode == 47)"


#: With one of these HTCondor makes an expression of its own and adds the user's by `||`. The
#: attribute alone (`+JobMaxRetries`) makes none. Source: SubmitHash::SetJobRetries.
_RETRIES = (
    (
        "htlease_retries = $(max_retries:$(JobMaxRetries:))"
        "$(success_exit_code:$(JobSuccessExitCode:))$(retry_until:)"
    ),
    'htlease_no_retries = "$SUBSTR(htlease_retries,0,1)" == ""',
)


def exit_policy_lines(on_wall_time: str | None) -> tuple[str, ...]:
    """Return the lines; `on_wall_time` is what the plan says, one of ON_WALL_TIME, or None."""
    again = _TRY_LATER
    hold = f"{_NOT_STARTED} || {_REFUSED} || {_TRY_LATER} && (OnExitRemove ?: true)"
    told = [
        (_TRY_LATER, _TRY_LATER_REASON, "75"),
        (_REFUSED, _REFUSED_REASON, "78"),
        (_NOT_STARTED, _NOT_STARTED_REASON, "2"),
    ]
    if on_wall_time == "next-attempt":
        again = f"({_OUT_OF_TIME} || {_TRY_LATER})"
    elif on_wall_time == "hold":
        hold = f"{_OUT_OF_TIME} || {hold}"
        told.append((_OUT_OF_TIME, _OUT_OF_TIME_REASON, "79"))
    reason = _own("on_exit_hold_reason", "OnExitHoldReason", "undefined")
    subcode = _own("on_exit_hold_subcode", "OnExitHoldSubCode", "undefined")
    for when, why, number in told:
        reason = f"ifThenElse({when}, {why}, {reason})"
        subcode = f"ifThenElse({when}, {number}, {subcode})"
    enough = f"({_TRY_LATER} && (NumJobCompletions ?: 0) >= {TRIES})"
    lines = [
        f"MY.{_TRY_LATER} = ExitCode =?= 75 && {PAYLOAD_START} =!= NumJobStarts",
        f"MY.{_REFUSED} = ExitCode =?= 78 && {PAYLOAD_START} =!= NumJobStarts",
        f"MY.{_NOT_STARTED} = {NOT_STARTED} =?= NumJobStarts",
        *_RETRIES,
        f"htlease_on_exit_remove = $(htlease_no_retries) && (!{again} || {enough})",
        *or_default("on_exit_remove", "OnExitRemove", "$(htlease_on_exit_remove)"),
        # HTCondor looks at this first, so that what would leave the queue is held.
        f"on_exit_hold = ({_own('on_exit_hold', 'OnExitHold', 'false')}) || {hold}",
        f"on_exit_hold_reason = {reason}",
        f"on_exit_hold_subcode = {subcode}",
    ]
    limit = {
        "next-attempt": ("periodic_release", "PeriodicRelease"),
        "fail": ("periodic_remove", "PeriodicRemove"),
    }.get(on_wall_time or "")
    if limit is not None:
        lines.append(f"htlease_held_by_limit = {_HELD_BY_LIMIT}")
        lines += or_default(*limit, "$(htlease_held_by_limit)")
    return tuple(lines)


def or_default(command: str, attribute: str, default: str) -> tuple[str, str]:
    """Return lines that leave the user's value, by either name, or else set the default.

    A reference to itself ends at the second `)` already, so its own default is a macro.
    """
    macro = f"htlease_else_{command}"
    return f"{macro} = $({attribute}:{default})", f"{command} = $({command}:$({macro}))"


def _own(command: str, attribute: str, default: str) -> str:
    """Return a reference to the user's value, by either name, or the default (without `)`)."""
    return f"$({command}:$({attribute}:{default}))"
