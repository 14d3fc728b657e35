"""Identity and evidence: who is newer, and which names can be used."""

import pytest

from htlease.errors import InvalidField
from htlease.rules.attempt import (
    NAME_LENGTH_MAX,
    AttemptId,
    Evidence,
    Order,
    Place,
    ReadFrom,
    SubjobKey,
    check_name,
    start_number,
)

# (what happened, the later start, the earlier start, how the later one stands to it)
ORDERS = [
    ("an ordinary restart", Evidence(2, 2, 20, 1), Evidence(1, 1, 10, 1), Order.NEWER),
    (
        "the shadow died before it counted",
        Evidence(1, 3, 12, 1),
        Evidence(1, 1, 10, 1),
        Order.NEWER,
    ),
    ("a reconnect raised the queue's value only", Evidence(2, 5), Evidence(1, 1), Order.NEWER),
    (
        "a checkpoint restart in one sandbox",
        Evidence(1, 1, 10, 2),
        Evidence(1, 1, 10, 1),
        Order.NEWER,
    ),
    (
        "a new sandbox after three checkpoint restarts in the old one",
        Evidence(2, 2, 20, 1),
        Evidence(1, 1, 10, 3),
        Order.NEWER,
    ),
    ("the same start", Evidence(1, 1, 10, 1), Evidence(1, 1, 10, 1), Order.SAME),
    ("an overflow claim shows shadow start 1 again", Evidence(3, 1), Evidence(2, 4), Order.UNCLEAR),
    ("nothing is known", Evidence(), Evidence(), Order.UNCLEAR),
    ("no part is known to both", Evidence(job_starts=2), Evidence(shadow_starts=1), Order.UNCLEAR),
    ("one part is known to both", Evidence(2, None), Evidence(1, 7), Order.NEWER),
    ("only the sandbox counted", Evidence(sandbox_seq=2), Evidence(sandbox_seq=1), Order.UNCLEAR),
]


@pytest.mark.parametrize(
    ("later", "earlier", "order"), [row[1:] for row in ORDERS], ids=[row[0] for row in ORDERS]
)
def test_evidence_orders_starts_by_dominance(
    later: Evidence, earlier: Evidence, order: Order
) -> None:
    assert later.compared_to(earlier) is order
    opposite = {Order.NEWER: Order.OLDER, Order.OLDER: Order.NEWER}.get(order, order)
    assert earlier.compared_to(later) is opposite


def test_every_reader_of_num_job_starts_gives_the_same_start_number() -> None:
    assert start_number(0, ReadFrom.JOB_AD) == 1
    assert start_number(1, ReadFrom.CHIRP) == 1
    assert start_number(1, ReadFrom.AFTER_THE_END) == 1


@pytest.mark.parametrize("bad", [-1, True, "1", 1.5, 1 << 62])
def test_a_count_that_is_none_is_refused_by_name(bad: object) -> None:
    with pytest.raises(InvalidField, match="evidence.job_starts"):
        Evidence(job_starts=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["job_starts", "shadow_starts", "shadow_birthdate", "sandbox_seq"])
def test_each_part_of_the_evidence_is_a_count_or_unknown(part: str) -> None:
    for count in (None, 0, 1, (1 << 62) - 1):
        assert getattr(Evidence(**{part: count}), part) == count
    for bad in (-1, 1 << 62, False, "2"):
        with pytest.raises(InvalidField) as refused:
            Evidence(**{part: bad})  # type: ignore[arg-type]
        assert refused.value.field == f"evidence.{part}" and repr(bad) in refused.value.problem


def test_the_counters_order_starts_whatever_the_sandbox_has_counted() -> None:
    earlier, later = Evidence(1, 1, 10, 7), Evidence(1, 1, 10, 8)
    assert later.counters_compared_to(earlier) is Order.SAME
    assert later.compared_to(Evidence(1, 1, 10)) is Order.SAME
    assert Evidence(1, 1, 10).compared_to(earlier) is Order.SAME
    assert Evidence(1, 1, 11).counters_compared_to(earlier) is Order.NEWER
    assert Evidence(1, 0, None).counters_compared_to(earlier) is Order.OLDER


def test_attempt_id_reads_back_as_written() -> None:
    attempt = AttemptId.of("ap1#42.0#1795225431", Evidence(2, 3))
    assert str(attempt) == "ap1#42.0#1795225431@2.3"
    assert AttemptId.parse(str(attempt)) == attempt


def test_attempt_id_shows_unknown_counts_as_dashes() -> None:
    attempt = AttemptId.of("user@ap1#42.0#1795225431", Evidence())
    assert str(attempt) == "user@ap1#42.0#1795225431@-.-"
    assert AttemptId.parse(str(attempt)) == attempt


@pytest.mark.parametrize("text", ["", "ap1#1.0#5", "ap1@2", "ap1@x.1", "@1.1", "ap1@1.", "ap1#1.5"])
def test_text_that_is_no_attempt_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidField) as refused:
        AttemptId.parse(text)
    assert refused.value.field == "attempt_id" and repr(text) in refused.value.problem


def test_attempt_id_may_know_one_count_only() -> None:
    for attempt in (AttemptId("g", 0, None), AttemptId("g", None, 0), AttemptId("a@b", 3, 12)):
        assert AttemptId.parse(str(attempt)) == attempt
    assert str(AttemptId("g", 0, None)) == "g@0.-"


@pytest.mark.parametrize("text", ["wf/subjob", "run-7/sample_0042", "a.b~c/node+splice:1"])
def test_key_reads_back_as_written(text: str) -> None:
    assert str(SubjobKey.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("no-slash", "exactly one slash"),
        ("a/b/c", "exactly one slash"),
        ("a b/c", "' '"),
        ("wf/größe", "'ö'"),
        ("/c", "workflow"),
        ("a/", "subjob"),
        ("a/..", "directory"),
        ("a/" + "x" * 201, "200 is the limit"),
        ("a/x\n", "'\\\\n'"),
    ],
)
def test_key_that_cannot_be_used_is_refused_with_the_reason(text: str, named: str) -> None:
    with pytest.raises(InvalidField, match=named):
        SubjobKey.parse(text)


@pytest.mark.parametrize(
    ("text", "field"), [("a//b", "key"), ("ab", "key"), ("a b/c", "workflow"), ("a/b c", "subjob")]
)
def test_a_key_is_refused_by_the_part_that_is_wrong(text: str, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        SubjobKey.parse(text)
    assert refused.value.field == field


def test_a_name_may_have_200_characters_and_begin_with_a_dot() -> None:
    for text in ("x" * NAME_LENGTH_MAX, "...", ".a"):
        assert check_name("phase", text) == text
    for bad, reason in (("", "empty"), (None, "empty"), (".", "directory"), ("..", "directory")):
        with pytest.raises(InvalidField, match=f"^phase: .*{reason}"):
            check_name("phase", bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidField, match="^phase: has 201 characters"):
        check_name("phase", "x" * 201)
    with pytest.raises(InvalidField, match="^phase: 'a/b' contains '/'"):
        check_name("phase", "a/b")


def test_one_slot_of_one_startd_is_proof_and_anything_less_is_not() -> None:
    here = Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1700000000")
    assert here.is_same_slot_as(Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1700000000"))
    assert not here.is_same_slot_as(Place("ep1", "slot1_2@ep1", "<10.0.0.1:9618>#1700000000"))
    assert not here.is_same_slot_as(Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1700000999"))
    assert not Place().is_same_slot_as(Place())
    for part in (Place("ep1", "slot1_1@ep1"), Place("ep1", startd="<10.0.0.1:9618>#1")):
        assert not part.is_same_slot_as(part), "half of what is needed may be another's as well"
