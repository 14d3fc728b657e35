"""Several servers over one database, and a database that goes away, crashes and comes back."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.contract.drill import KEY, START, Drill, acquire, comparable, nonce, refused
from tests.contract.stores import SHARED, PostgresKind
from tests.postgres import Cluster, shared_cluster

from htlease.errors import BadConfig
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease_server.engine.batch import Crashed
from htlease_server.engine.history import fold
from htlease_server.store.base import StoreFailed
from htlease_server.store.postgresql.postgres_store import PostgresStore

PLAN = Plan((PhaseSpec("fetch"), PhaseSpec("push", "once")))
Servers = tuple[Drill, Drill]


@pytest.fixture
def kind() -> PostgresKind:
    return SHARED["postgresql"]


@pytest.fixture
def servers(kind: PostgresKind, tmp_path: Path) -> Iterator[Servers]:
    both = (Drill(kind, tmp_path), Drill(kind, tmp_path))
    yield both
    for drill in both:
        drill.close()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def until(is_done: Callable[[], bool], what: str) -> None:
    """Wait for what comes by itself."""
    ends_at = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < ends_at, what
        time.sleep(0.05)


# ------------------------------------------------------------ one truth


def test_of_fifty_attempts_at_once_on_two_servers_one_gets_the_lease(servers: Servers) -> None:
    keys = [SubjobKey("race", f"s-{number}") for number in range(8)]

    def ask(server: Drill, numbers: range) -> list[tuple[SubjobKey, Any]]:
        wanted = [(key, acquire(1, nonce=nonce(number))) for key in keys for number in numbers]
        random.Random(numbers.start).shuffle(wanted)
        answers = server.ask_all(*(server.pending(command, key) for key, command in wanted))
        return [(key, answer) for (key, _), answer in zip(wanted, answers, strict=True)]

    first, second = servers
    asked = at_once(lambda: ask(first, range(25)), lambda: ask(second, range(100, 125)))
    for key in keys:
        answers = [answer for half in asked for of, answer in half if of == key]
        granted = [answer for answer in answers if isinstance(answer, m.Grant)]
        assert [grant.fence for grant in granted] == [1]
        assert Counter(refused(one) for one in answers if one not in granted) == {
            "lease-still-live": 49
        }
        assert fold(first.history(key)).fence == 1


def test_a_request_that_comes_again_on_another_server_is_done_once(servers: Servers) -> None:
    first, second = servers
    first.acquire(plan=PLAN)
    enter = m.Enter(1, nonce(1), "fetch")
    answer = first.ask(enter, request_id="r-enter")
    assert second.ask(enter, request_id="r-enter") == answer
    assert refused(second.ask(m.Exited(1, nonce(1)), request_id="r-enter")) == "request-id-reused"
    fail = m.Fail(1, nonce(1), "fetch", "no space")
    both = at_once(*(lambda s=s: s.ask(fail, request_id="r-fail") for s in servers))
    assert both[0] == both[1]
    events = [row.event for row in first.history()]
    assert events.count("phase-entered") == events.count("phase-failed") == 1


def test_what_one_server_did_the_other_knows_in_its_next_turn(servers: Servers) -> None:
    first, second = servers
    first.acquire()
    first.now += 100
    second.ask(m.Renew(1, nonce(1)))
    first.now += 100
    assert refused(first.ask(acquire(2))) == "lease-still-live", "renewed on the other"
    assert second.ask(m.Renew(1, nonce(1))).order == "stop", "recalled on the other"
    first.ask(m.Abandon(1, nonce(1)))
    assert second.acquire(number=2).fence == 2
    assert refused(first.ask(m.Enter(1, nonce(1), "run"))) == "superseded-attempt"
    first.put("shape", template=True)
    assert refused(second.ask(acquire(), SubjobKey("shape", "s"))) == "invalid"


def test_a_maintenance_window_counts_on_all_servers_at_once(servers: Servers) -> None:
    first, second = servers
    first.acquire()
    second.maintain(86400, "the yearly one")
    first.now += 86400 + 100
    assert refused(first.ask(acquire(2))) == "lease-still-live"
    assert first.read(first.queries.maintenance())["windows"][0]["reason"] == "the yearly one"


def test_an_announced_window_begins_on_all_servers_at_the_databases_time(
    servers: Servers,
) -> None:
    first, second = servers
    second.announce(3600, 86400)
    first.announce(7200, 86400, instead_of=3600)
    first.now += 7200 - 60
    first.acquire()
    second.now = first.now + 120
    assert refused(second.ask(acquire(2))) == "lease-still-live"
    assert refused(second.withdraw(7200)) == "invalid", "it has begun"
    second.restart(after_seconds=0)
    first.now = START + 86400 + 119
    assert refused(first.ask(acquire(3))) == "lease-still-live"
    assert len(first.read(first.queries.maintenance())["windows"]) == 1


def test_two_servers_at_the_same_subjobs_leave_a_history_that_folds_to_the_state(
    servers: Servers,
) -> None:
    keys = [SubjobKey(f"w-{number % 3}", f"s-{number}") for number in range(12)]

    def work(server: Drill, seed: int) -> list[Any]:
        draw, answers = random.Random(seed), []
        for _ in range(40):
            asked = []
            for _ in range(draw.randint(1, 20)):
                attempt, fence = draw.randint(1, 3), draw.randint(1, 5)
                commands: list[m.Command] = [
                    acquire(attempt, plan=PLAN),
                    m.Enroll(f"ap1#{draw.randint(43, 45)}.0#1795229999"),
                    m.Renew(fence, nonce(attempt)),
                    m.Renew(fence, nonce(attempt), f"details {draw.random()}"),
                    m.Enter(fence, nonce(attempt), "fetch"),
                    m.Complete(fence, nonce(attempt), "fetch"),
                    m.Abandon(fence, nonce(attempt)),
                ]
                ids = f"r-{seed}-{draw.random()}"
                asked.append(server.pending(draw.choice(commands), draw.choice(keys), ids))
            answers += server.ask_all(*asked)
        return answers

    first, second = servers
    answers = at_once(lambda: work(first, 1), lambda: work(second, 2))
    for answer in answers[0] + answers[1]:
        assert not isinstance(answer, Crashed)
        assert not (isinstance(answer, m.Rejection) and answer.code == "overloaded"), answer
    statuses: Counter[tuple[str, str]] = Counter()
    for key in keys:
        history = first.history(key)
        assert [row.seq for row in history] == list(range(1, len(history) + 1))
        assert comparable(fold(history)) == comparable(first.state(key))
        grants = [row.fence for row in history if row.event == "lease-acquired"]
        assert grants == list(range(1, len(grants) + 1))
        statuses[key.workflow, first.state(key).status.value] += 1
    for workflow in {key.workflow for key in keys}:
        row = first.store.workflow(workflow)
        counted = {status: n for (of, status), n in statuses.items() if of == workflow}
        assert first.store.counts(row.id) == counted


def test_a_value_that_the_database_takes_not_hurts_only_its_own_request(servers: Servers) -> None:
    bad = servers[0].pending(acquire(1, host="ep1\0.example.org"), SubjobKey("w", "bad"))
    good = [servers[0].pending(acquire(), SubjobKey("w", f"s-{number}")) for number in range(5)]
    answers = servers[0].ask_all(*good[:2], bad, *good[2:])
    assert refused(answers.pop(2)) == "invalid"
    assert [answer.fence for answer in answers] == [1] * 5
    assert servers[0].store.connections == 1, "what the database refused cost the connection"


# ------------------------------------------------------------ the database goes and comes


def runs(drill: Drill) -> int:
    return len(drill.store.runs())


def test_a_server_that_starts_beside_another_extends_nothing(servers: Servers) -> None:
    first, second = servers
    first.acquire(ttl_seconds=100)
    before = runs(first)
    first.now += 101
    until(lambda: first.store.moment().alive_at > first.now - 15, "no sign of life")
    second.restart(after_seconds=0)
    assert runs(first) == before
    second.now = first.now
    assert second.acquire(number=2).fence == 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One with few files: PostgreSQL syncs every file that it has when it comes back."""
    cluster = Cluster()
    cluster.make()
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def crashing(cluster: Cluster, tmp_path: Path) -> Iterator[Servers]:
    kind = PostgresKind(lambda: cluster)
    both = (Drill(kind, tmp_path), Drill(kind, tmp_path))
    yield both
    for drill in both:
        drill.close()


@pytest.mark.parametrize("how", ["crash", "backend"])
def test_no_lease_ends_by_a_crash_that_lost_its_renewals(
    crashing: Servers, how: str, cluster: Cluster
) -> None:
    first, second = crashing
    kind = first.kind
    assert isinstance(kind, PostgresKind)
    first.acquire(ttl_seconds=100)
    first.now += 60
    before = runs(first)
    # So that there is no other reason for a new run than the crash.
    until(lambda: first.store.moment().alive_at > first.now - 15, "no sign of life")
    first.ask(m.Renew(1, nonce(1)))
    if how == "crash":
        cluster.stop(signal.SIGQUIT)
        answer = second.ask(m.Enter(1, nonce(1), "run"))
        assert refused(answer) == "overloaded" and answer.retry_after_seconds
        assert second.store_writer.failure
        cluster.start()
    else:
        name = (first.folder / "database").read_text()
        query = f"SELECT max(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        os.kill(int(cluster.sql("postgres", query)), signal.SIGKILL)
    # As if the renewal had been lost, whether or not it was.
    until(lambda: not cannot_connect(kind, first), "the database does not come back")
    kind.tamper(first.folder, f"UPDATE lease SET deadline_at = {START + 100}")
    for server in crashing:
        until(
            lambda s=server: not overloaded(s.ask(m.Renew(9, nonce(9)))),  # type: ignore[misc]
            "it is not used again",
        )
        assert runs(server) == before + 1, "the second to connect finds the run of the first"
    first.now += 50
    assert refused(second.ask(acquire(2))) == "lease-still-live"
    assert first.ask(m.Renew(1, nonce(1))).order == "stop"
    assert first.store_writer.failure is second.store_writer.failure is None


def overloaded(answer: Any) -> bool:
    return isinstance(answer, m.Rejection) and answer.code == "overloaded"


def cannot_connect(kind: PostgresKind, drill: Drill) -> bool:
    try:
        kind.tamper(drill.folder, "SELECT 1")
    except Exception:
        return True
    return False


def test_readers_connect_again_too(crashing: Servers, cluster: Cluster) -> None:
    first, _ = crashing
    first.acquire()
    assert first.read(first.queries.subjob(KEY))["fence"] == 1
    cluster.stop(signal.SIGQUIT)
    cluster.start()
    assert first.read(first.queries.subjob(KEY))["fence"] == 1


# ------------------------------------------------------------ set-ups that cannot work


def test_what_is_wrong_with_the_database_is_said(kind: PostgresKind, tmp_path: Path) -> None:
    cluster = shared_cluster()
    with pytest.raises(BadConfig, match="is not there.*nowhere.*createdb"):
        PostgresStore(cluster.url("nowhere"))
    with pytest.raises(BadConfig, match="password.*~/.pgpass") as told:
        PostgresStore(cluster.url("postgres").replace("@", ":s3cret@"))
    assert "s3cret" not in str(told.value)
    with pytest.raises(BadConfig, match="lets us not in.*somebody"):
        PostgresStore(cluster.url("postgres").replace("htlease@", "somebody@"))
    with pytest.raises(StoreFailed, match="cannot be reached"):
        PostgresStore("postgresql://htlease@127.0.0.1:1/x")
    name = cluster.new_database()
    cluster.sql("postgres", "CREATE ROLE guest LOGIN")
    cluster.sql(name, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(BadConfig, match="permission denied.*GRANT"):
        PostgresStore(cluster.url(name).replace("htlease@", "guest@"))
    cluster.sql("postgres", "CREATE DATABASE ascii ENCODING SQL_ASCII TEMPLATE template0")
    with pytest.raises(BadConfig, match="SQL_ASCII.*--encoding=UTF8"):
        PostgresStore(cluster.url("ascii"))
