"""What is done to the site itself is kept, and who may only reach their own reaches nothing else."""

from __future__ import annotations

from typing import Any

from tests.contract.drill import KEY, Drill, acquire

from htlease.rules import messages as m
from htlease_server.engine.batch import PendingRequest
from htlease_server.engine.site.audit import MINT, REVOKE, AuditEntry
from htlease_server.engine.site.workflows import PutWorkflow
from htlease_server.models.request_models import WORKFLOW_DECODER, decode
from htlease_server.store.base import AuditRow


def _do(drill: Drill, deed: AuditEntry, actor: str = "admin") -> Any:
    return drill.ask_all(PendingRequest(None, deed, actor, drill._loop.create_future()))[0]


def _as_submitter(drill: Drill, owner: str, sent: Any, key: Any = KEY) -> Any:
    future = drill._loop.create_future()
    pending = PendingRequest(key, sent, owner, future, None, owner, is_own_only=True)
    return drill.ask_all(pending)[0]


def _put(name: str) -> PutWorkflow:
    raw = b'{"request_id": "put-of-a-submitter"}'
    body = decode(WORKFLOW_DECODER, raw)
    return PutWorkflow(name, body, None, raw)


def test_deeds_are_kept_in_order_and_told_by_kind(drill: Drill) -> None:
    for number in range(5):
        kind = REVOKE if number % 2 else MINT
        row = _do(
            drill, AuditEntry(kind, token_id=f"token-{number}", data={"reason": None, "n": number})
        )
        assert isinstance(row, AuditRow) and row.at == drill.now
        drill.now += 1
    drill.restart(after_seconds=3600)
    found = drill.read(drill.queries.audit_entries(None, 0, 3))
    assert [deed["token_id"] for deed in found["deeds"]] == ["token-0", "token-1", "token-2"]
    rest = drill.read(drill.queries.audit_entries(None, found["next"], 3))
    assert [deed["token_id"] for deed in rest["deeds"]] == ["token-3", "token-4"]
    assert rest["next"] is None and rest["deeds"][1]["n"] == 4 and "reason" not in rest["deeds"][1]
    revoked = drill.read(drill.queries.audit_entries(REVOKE, 0, 10))["deeds"]
    assert [deed["token_id"] for deed in revoked] == ["token-1", "token-3"]


def test_revocations_are_found_from_an_instant_on(drill: Drill) -> None:
    _do(drill, AuditEntry(MINT, token_id="other"))
    _do(drill, AuditEntry(REVOKE, token_id="early"))
    drill.now += 60
    _do(drill, AuditEntry(REVOKE, workflow="w", subjob="s", data={"issued_until": drill.now}))
    reader = drill.states.reader()
    assert [row.token_id for row in reader.revocations(0.0)] == ["early", None]
    late = reader.revocations(drill.now - 1)
    assert [(row.workflow, row.subjob) for row in late] == [("w", "s")]
    reader.close()


def test_a_deed_that_the_store_refused_was_not_done(refusing: Drill) -> None:
    refusing.store.is_full = True
    answer = _do(refusing, AuditEntry(MINT, token_id="t"))
    refusing.store.is_full = False
    assert isinstance(answer, m.Rejection) and answer.code == "overloaded"
    assert refusing.read(refusing.queries.audit_entries(None, 0, 10))["deeds"] == []


def test_workflows_and_windows_that_are_changed_are_deeds_too(drill: Drill) -> None:
    drill.put("run9", labels={"a": "b"})
    drill.maintain(60, "a disk")
    found = drill.read(drill.queries.audit_entries(None, 0, 10))["deeds"]
    assert [(deed["deed"], deed.get("workflow")) for deed in found] == [
        ("put-workflow", "run9"),
        ("put-maintenance", None),
    ]
    assert found[1]["reason"] == "a disk"


def test_a_workflow_belongs_to_whoever_made_it_first(drill: Drill) -> None:
    assert not isinstance(_as_submitter(drill, "alice", _put("hers"), None), m.Rejection)
    refused = _as_submitter(drill, "bob", _put("hers"), None)
    assert isinstance(refused, m.Rejection) and refused.code == "forbidden"
    drill.restart(after_seconds=1)
    assert drill.read(drill.queries.made_by("hers")) == "alice"
    assert drill.read(drill.queries.workflow("hers", "", 10))["made_by"] == "alice"


def test_a_workflow_made_by_its_first_subjob_belongs_to_its_sender(drill: Drill) -> None:
    sent = drill.pending(acquire()).sent
    granted = _as_submitter(drill, "alice", sent)
    assert isinstance(granted, m.Grant)
    assert drill.read(drill.queries.made_by(KEY.workflow)) == "alice"
    for command in (acquire(2), m.Cancel("mine"), m.Renew(1, "x" * 20), m.Enroll()):
        refused = _as_submitter(drill, "bob", drill.pending(command).sent)
        assert isinstance(refused, m.Rejection) and refused.code == "forbidden"
    cancelled = _as_submitter(drill, "alice", drill.pending(m.Cancel("mine")).sent)
    assert isinstance(cancelled, m.SubjobReply)
