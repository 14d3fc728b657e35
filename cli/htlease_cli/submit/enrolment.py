"""Enrolling the subjobs of a submission, and taking that back when nothing is submitted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from htlease.client.client import LeaseServer
from htlease.errors import HTLeaseError, InvalidField, Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import Plan


def check_distinct(keys: Sequence[SubjobKey]) -> None:
    """Refuse two jobs for one subjob: they would fight for its lease. Raises InvalidField."""
    first_process: dict[SubjobKey, int] = {}
    for process, key in enumerate(keys):
        if key in first_process:
            raise InvalidField(
                "HTLeaseKey",
                f"jobs {first_process[key]} and {process} of this file are both {key}; put "
                "$(Process) or an item into the key",
            )
        first_process[key] = process


@dataclass
class Enrolment:
    """What was enrolled so far, in order."""

    server: LeaseServer
    plan: Plan | None
    #: Re-open subjobs that are complete or cancelled.
    force: bool
    epochs: dict[SubjobKey, int] = field(default_factory=dict)

    def enroll(self, key: SubjobKey, global_job_id: str | None = None) -> None:
        """Enrol one subjob, for a job if it has one; raises Refused, naming how to run it again."""
        try:
            answer = self._send(key, self.force, global_job_id)
        except Refused as refused:
            if refused.code != "subjob-closed":
                raise
            if refused.outcome != "cancelled" or self.server.subjob(key)["attempt_number"]:
                raise Refused(
                    refused.code,
                    f"{key} is {refused.outcome}; `htlease submit --force` runs it again",
                    outcome=refused.outcome,
                ) from None
            # Cancelled before any attempt had it, as by a submission that came to nothing.
            answer = self._send(key, True, global_job_id)
        self.epochs[key] = answer["epoch"]

    def _send(self, key: SubjobKey, force: bool, global_job_id: str | None) -> dict[str, int]:
        enroll = m.Enroll(global_job_id, plan=self.plan, force=force)
        return self.server.command(key, enroll, "epoch")

    def bind(self, key: SubjobKey, global_job_id: str) -> None:
        """Tell the server which job the enrolled submission has become; may be repeated."""
        self.server.command(key, m.Enroll(global_job_id), "epoch")

    def take_back(self, reason: str, keys: Collection[SubjobKey] | None = None) -> list[str]:
        """Cancel what nobody has begun, and return what had to be left, a sentence each.

        Of these keys only, if any are given.
        """
        left = []
        for key, epoch in self.epochs.items():
            if keys is not None and key not in keys:
                continue
            try:
                status = "waiting" if epoch == 1 else self.server.subjob(key)["status"]
                if status == "waiting":
                    self.server.command(key, m.Cancel(reason))
                else:
                    left.append(f"{key} stays {status}: an earlier submission has it")
            except HTLeaseError as error:
                left.append(f"{key} could not be cancelled: {error}")
        return left
