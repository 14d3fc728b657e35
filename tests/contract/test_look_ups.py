"""Lists, look-ups and workflows."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.contract.drill import KEY, PLAN, Drill, acquire, nonce, refused

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.protocol import rfc3339
from htlease_server.api.queries import WAITING_MAX
from htlease_server.counters import LOOK_UPS
from htlease_server.engine.states import expiry_counts
from htlease_server.http.messages import Busy
from htlease_server.store.base import WorkflowRow

# ------------------------------------------------------------ look-ups


def test_a_subjob_is_found_by_every_id_it_was_known_by(drill: Drill) -> None:
    drill.ask(m.Enroll(None, links={"submitter": "ap0#7.0#1", "ce": "ce1#8.0#2"}))
    drill.acquire()
    known = ("ap0#7.0#1", "ce1#8.0#2", "ap1#42.0#1795225431", "ap1#42.0#1795225431@1.1", "sample-1")
    for id_text in known:
        found = drill.read(drill.queries.known_as(id_text))
        assert [(one["workflow"], one["subjob"]) for one in found] == [("run7", "sample-1")]
    assert drill.read(drill.queries.known_as("ap1#42")) == []


def test_more_look_ups_than_may_wait_are_refused_at_once(drill: Drill) -> None:
    async def all_at_once() -> list[object]:
        look_ups = (drill.queries.flags(None) for _ in range(WAITING_MAX + 5))
        return await asyncio.gather(*look_ups, return_exceptions=True)

    found = drill.read(all_at_once())
    refused = [one for one in found if isinstance(one, Busy)]
    assert [one.cause for one in refused] == [LOOK_UPS] * 5
    assert found.count({"flags": []}) == WAITING_MAX


def test_no_document_shows_a_nonce_or_what_is_stored_of_it(drill: Drill) -> None:
    drill.acquire()
    drill.ask(acquire(2))
    drill.ask(m.Renew(7, nonce(3)))
    shown = json.dumps(
        [
            drill.read(drill.queries.subjob(KEY)) | {"plan": None},
            drill.read(drill.queries.history(KEY, 0, 100)),
            drill.read(drill.queries.workflow("run7", "", 100)),
        ]
    )
    assert "attempt-refused" in shown and "write-refused" in shown
    for number in (1, 2, 3):
        assert nonce(number) not in shown
        assert m.nonce_digest(nonce(number)) not in shown
    assert "nonce" not in shown


def test_counts_tell_lapsed_leases_from_renewed_ones(drill: Drill) -> None:
    for number in range(4):
        drill.acquire(SubjobKey("run7", f"s-{number}"))
    drill.ask(m.Abandon(1, nonce(1)), SubjobKey("run7", "s-3"))
    drill.now += 119
    drill.ask(m.Renew(1, nonce(1)), SubjobKey("run7", "s-0"))
    drill.now += 2
    workflow = drill.read(drill.queries.workflow("run7", "", 100))
    assert workflow["counts"] == {"active": 1, "lapsed": 2, "abandoned": 1}
    assert workflow["state"] == "running"
    assert [one["status"] for one in workflow["subjobs"]] == [
        "active",
        "lapsed",
        "lapsed",
        "abandoned",
    ]


def test_counts_after_a_downtime_call_no_extended_lease_lapsed(drill: Drill) -> None:
    drill.acquire()
    drill.restart(after_seconds=3600)
    assert drill.read(drill.queries.workflow("run7", "", 100))["counts"] == {"active": 1}


def test_a_workflow_with_many_leases_tells_what_was_counted_and_when(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_counts, "LOOKED_AT_MAX", 3)
    monkeypatch.setattr(expiry_counts, "_PAGE", 2)
    for number in range(7):
        drill.acquire(SubjobKey("run7", f"s-{number}"))
    drill.acquire(SubjobKey("run8", "s"))
    drill.now += 119.7
    drill.ask(m.Renew(1, nonce(1)), SubjobKey("run7", "s-1"))
    drill.flush(after_seconds=0)
    drill.ask(m.Renew(1, nonce(1)), SubjobKey("run7", "s-3"))  # in memory only, where there is one
    drill.ask(acquire(2), SubjobKey("run7", "s-5"))  # recalls its holder
    drill.now += 0.4  # too soon for another flush

    first = drill.read(drill.queries.workflow("run7", "", 100))
    assert first["counts"] == {"active": 6, "recalled": 1}
    assert (first["state"], first["lapsed_counted_at"]) == ("running", None)
    counted_at = drill.now
    counted = drill.until_counted("run7")
    assert counted["counts"] == {"active": 2, "lapsed": 5}
    assert counted["lapsed_counted_at"] == rfc3339(counted_at)

    # Until it is counted again it is what it was then, but for what is held no more.
    drill.ask(m.Cancel("no longer wanted"), SubjobKey("run7", "s-5"))
    drill.now += 1
    listed = drill.read(drill.queries.workflows("", 10))["workflows"]
    assert [one["counts"] for one in listed] == [
        {"active": 2, "lapsed": 4, "cancelled": 1},
        {"lapsed": 1},
    ]
    assert [one["lapsed_counted_at"] for one in listed] == [
        rfc3339(counted_at),
        rfc3339(drill.now),
    ]
    drill.now += 3600
    assert drill.until_counted("run7", rfc3339(counted_at))["state"] == "interrupted"


def test_a_list_looks_at_few_leases_however_many_it_tells_of(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_counts, "LOOKED_AT_MAX", 3)
    for number in range(4):
        drill.acquire(SubjobKey(f"w-{number}", "s"))
        drill.acquire(SubjobKey(f"w-{number}", "t"))
    drill.now += 3600
    page = drill.read(drill.queries.workflows("", 10))["workflows"]
    assert [one["counts"] for one in page] == [{"lapsed": 2}, *[{"active": 2}] * 3]
    monkeypatch.setattr(expiry_counts, "LOOKED_AT_MAX", 1)
    drill.until_counted("w-3")
    monkeypatch.setattr(expiry_counts, "LOOKED_AT_MAX", 3)
    page = drill.read(drill.queries.workflows("", 10))["workflows"]
    assert [one["counts"] for one in page] == [{"lapsed": 2}] * 4


def test_lists_are_read_page_by_page(drill: Drill) -> None:
    for number in range(5):
        drill.acquire(SubjobKey(f"w-{number}", "s"))
        drill.acquire(SubjobKey("w-0", f"t-{number}"))
    pages, cursor = [], ""
    while cursor is not None:
        page = drill.read(drill.queries.workflows(cursor, 2))
        pages.append([one["workflow"] for one in page["workflows"]])
        cursor = page["next"]
    assert [name for page in pages for name in page] == [f"w-{number}" for number in range(5)]
    page = drill.read(drill.queries.workflow("w-0", "t-1", 2))
    assert [one["subjob"] for one in page["subjobs"]] == ["t-2", "t-3"]


def test_attempts_are_told_with_their_ends(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    drill.ask(m.Enter(1, nonce(1), "fetch"))
    drill.ask(m.Abandon(1, nonce(1), "evicted"))
    drill.acquire(number=2)
    drill.now += 130
    drill.acquire(number=3)
    drill.ask(m.Exited(3, nonce(3), 7))
    attempts = drill.read(drill.queries.subjob(KEY))["attempts"]
    assert [(one["fence"], one["why"], one["end"]) for one in attempts] == [
        (1, "first", "abandoned"),
        (2, "abandoned", "expired"),
        (3, "expired", "exited"),
    ]
    assert attempts[0]["reason"] == "evicted"
    assert attempts[0]["phases"][0]["name"] == "fetch"
    assert attempts[2]["exit_code"] == 7


# ------------------------------------------------------------ workflows


def test_a_workflow_gives_its_plan_to_its_subjobs(drill: Drill) -> None:
    drill.put("run7", plan={"phases": [{"name": "fetch"}, {"name": "push", "restart": "once"}]})
    assert [phase.name for phase in drill.acquire().phases] == ["fetch", "push"]


def test_a_template_can_be_copied_and_not_run(drill: Drill) -> None:
    drill.put("shape", profile="staged", template=True, labels={"owner": "ada"})
    answer = drill.ask(acquire(), SubjobKey("shape", "s"))
    assert isinstance(answer, m.Rejection)
    assert (answer.code, answer.field) == ("invalid", "workflow")
    copy = drill.put("run8", copy_of="shape", labels={"owner": "bob"})
    assert isinstance(copy, WorkflowRow) and not copy.template
    assert copy.labels == '{"owner":"bob"}'
    assert drill.acquire(SubjobKey("run8", "s")).phase is None  # a state machine's first is open
    missing = drill.put("run9", copy_of="nowhere")
    assert isinstance(missing, m.Rejection) and missing.field == "copy_of"


def test_a_put_that_comes_again_changes_nothing_and_another_body_is_refused(drill: Drill) -> None:
    first = drill.put("run7", request_id="p-1", labels={"a": "1"})
    assert drill.put("run7", request_id="p-1", labels={"a": "1"}) == first
    assert refused(drill.put("run7", request_id="p-1", labels={"a": "2"})) == "request-id-reused"
    changed = drill.put("run7", request_id="p-2", structure={"nodes": ["a"]})
    assert isinstance(changed, WorkflowRow) and changed.labels == '{"a":"1"}'
