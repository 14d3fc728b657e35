"""A subjob moved by the real rules, whose history comes out as the server shows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tests.unit.core.rules.world import World

from htlease.rules import messages as m
from htlease.rules.attempt import Place
from htlease_server.engine.history import EVENT_NAMES, data_of, event_document
from htlease_server.store.base import HistoryRow

SLOT = Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1700000000")


@dataclass
class Recorder(World):
    """A world in which every command passes a second after the one before."""

    now: float = 1795232712.0
    hosts: dict[str, str] = field(default_factory=dict)
    documents: list[dict[str, Any]] = field(default_factory=list)

    def send(self, command: m.Command) -> m.Decision:
        if isinstance(command, m.Acquire):
            name = command.nonce.removeprefix("nonce-of-").rstrip(".")
            command = dataclasses.replace(command, host=self.hosts.get(name, "ep1"))
        decision = super().send(command)
        for event in decision.events:
            if isinstance(event, m.LeaseRenewed):
                continue  # a renewal is not kept
            seq = len(self.documents) + 1
            row = HistoryRow(
                1, seq, self.now, EVENT_NAMES[type(event)], getattr(event, "fence", None),
                "admin", f"r{seq}", None, None, None, data_of(event),
            )  # fmt: skip
            self.documents.append(event_document(row))
        self.now += 1
        return decision
