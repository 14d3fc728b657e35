"""Whose a workflow is: the first owner whose job used its name, kept as label `owner`."""

from __future__ import annotations

from htlease.client.client import LeaseServer
from htlease.errors import Refused

LABEL = "owner"
_KNOWN_MAX = 10_000


class WorkflowOwners:
    """Keeps workflow names apart that belong to different owners."""

    def __init__(self, server: LeaseServer) -> None:
        self._server = server
        self._known: dict[str, str] = {}

    def claim(self, workflow: str, owner: str) -> None:
        """Make sure that a workflow is this owner's; raises Refused, ServerUnavailable.

        `owner` is a job's `User`, NAME@UID_DOMAIN: one server may have several access points.
        """
        if workflow not in self._known:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[workflow] = self._ask(workflow, owner)
        if self._known[workflow] != owner:
            raise Refused(
                "forbidden",
                f"workflow {workflow} belongs to {self._known[workflow]}; {owner} has to put "
                "another name before the slash of HTLeaseKey",
            )

    def _ask(self, workflow: str, owner: str) -> str:
        labels = self._server.workflow_labels(workflow)
        if LABEL not in labels:
            labels = {**labels, LABEL: owner}
            self._server.put_workflow(workflow, {"labels": labels})
        return labels[LABEL]
