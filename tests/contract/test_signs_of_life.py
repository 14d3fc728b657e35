"""When a server writes what may be written late, and what a store that fails does to that."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.answers import AtOnce
from tests.contract.drill import KEY, START, Drill, nonce
from tests.contract.stores import RefusingStore

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.engine.batch import Batch
from htlease_server.engine.states.memory_states import ALIVE_SECONDS, FLUSH_SECONDS, InMemoryStates
from htlease_server.store.sqlite.sqlite_store import SqliteStore


class Site:
    """A state source, whose batches a test takes by hand."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.store = SqliteStore(folder / "store.sqlite3")
        self.states = InMemoryStates(self.store, lambda: self.now)

    def due_after(self, seconds: float) -> bool:
        """Tell whether something is due so long after the start."""
        self.now = START + seconds
        return self.states.is_flush_due()

    def write(self, is_last: bool = False) -> Batch | None:
        """Take a batch, and return it if there was anything to write."""
        batch = self.states.open()
        batch.is_last = is_last
        if not self.states.prepare(batch):
            return None
        self.store.write(batch.write_set)
        self.states.wrote(batch)
        return batch


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.states.close()


def test_a_young_server_signs_of_life_more_often_than_an_old_one(site: Site) -> None:
    assert site.states.name == site.store.name, "whoever is told of it knows which one"
    assert not site.due_after(0.0) and not site.due_after(FLUSH_SECONDS - 0.01)
    assert site.due_after(FLUSH_SECONDS)
    assert not site.due_after(0.4) and site.write() is None, "nothing is due, nothing is written"
    signed = [0.0]
    for tenth in range(1, 600):
        if site.due_after(tenth / 10):
            batch = site.write()
            assert batch is not None and batch.write_set.alive is not None
            assert batch.write_set.alive == (START, site.now)
            signed.append(tenth / 10)
    for before, after in itertools.pairwise(signed):
        # What it has lived without a sign of it is a quarter of its life at most, but for the
        # first moments, when it is a flush.
        allowed = min(ALIVE_SECONDS, max(FLUSH_SECONDS, after / 4))
        assert allowed - 0.05 <= after - before <= allowed + 0.15
    assert signed[-1] - signed[-2] == pytest.approx(ALIVE_SECONDS)


def test_a_server_that_ends_signs_and_the_next_one_knows(site: Site, tmp_path: Path) -> None:
    site.now += 0.125
    batch = site.write(is_last=True)
    assert batch is not None and batch.write_set.alive == (START, START + 0.125)
    site.states.close()
    site.store = SqliteStore(tmp_path / "store.sqlite3")
    site.now += 100
    site.states = InMemoryStates(site.store, lambda: site.now)
    assert site.states.started_at == START + 100.125
    lease = START + 60
    told = site.states.downtime.deadline(lease, 120.0, site.now)
    assert told == START + 100.125 + 120, "an outage since the sign, for whoever was alive then"
    assert site.states.downtime.deadline(START + 0.1, 120.0, site.now) == START + 0.1


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(AtOnce(), tmp_path, RefusingStore)
    drill.acquire()
    drill.now += 10
    renew(drill)  # by now a flush was due, so it was written with its batch
    assert not drill.states.unflushed
    drill.now += 0.25
    yield drill
    drill.store.is_full = False
    drill.close()


def states_of(drill: Drill) -> InMemoryStates:
    assert isinstance(drill.states, InMemoryStates)
    return drill.states


def stored_deadline(drill: Drill) -> float:
    row = drill.store.subjob(KEY)
    assert row is not None
    return float(row.deadline_at)


def renew(drill: Drill) -> None:
    assert isinstance(drill.ask(m.Renew(1, nonce(1))), m.Renewal)


def turn_of(drill: Drill, is_written: bool) -> None:
    """Take a batch as the writer does; the store has it, or refuses it."""
    batch = states_of(drill).open()
    if states_of(drill).prepare(batch):
        if is_written:
            drill.store.write(batch.write_set)
            states_of(drill).wrote(batch)
        else:
            states_of(drill).undo(batch)


def test_a_renewal_is_in_memory_until_it_is_on_the_disk(drill: Drill) -> None:
    before, first = drill.now - 0.25, drill.now
    renew(drill)
    (row_id,) = drill.states.unflushed
    assert drill.states.unflushed[row_id] == (first + 120, 120.0)
    assert stored_deadline(drill) == before + 120
    drill.flush()
    assert not drill.states.unflushed and stored_deadline(drill) == first + 120


def test_a_renewal_that_could_not_be_written_is_not_forgotten(drill: Drill) -> None:
    renew(drill)
    drill.now += 1
    turn_of(drill, is_written=False)
    (row_id,) = drill.states.unflushed
    assert drill.states.unflushed[row_id][0] == drill.now - 1 + 120
    assert not states_of(drill).is_flush_due(), "not again at once"
    drill.now += FLUSH_SECONDS
    assert states_of(drill).is_flush_due()
    turn_of(drill, is_written=True)
    assert not drill.states.unflushed and stored_deadline(drill) == drill.now - 1.5 + 120


def test_a_renewal_that_comes_while_another_is_written_outlasts_it(drill: Drill) -> None:
    renew(drill)
    drill.now += 1
    (row_id,) = drill.states.unflushed
    for is_written in (False, True):
        batch = states_of(drill).open()
        assert states_of(drill).prepare(batch)
        assert drill.states.unflushed[row_id][0] == drill.now - 1 + 120, "it is not there yet"
        renew(drill)
        assert drill.states.unflushed[row_id][0] == drill.now + 120
        if is_written:
            drill.store.write(batch.write_set)
            states_of(drill).wrote(batch)
            assert stored_deadline(drill) == drill.now - 1 + 120
        else:
            states_of(drill).undo(batch)
        assert drill.states.unflushed[row_id][0] == drill.now + 120
        drill.now += 1
    turn_of(drill, is_written=True)
    assert not drill.states.unflushed and stored_deadline(drill) == drill.now - 1 + 120


def test_a_subjob_that_was_forgotten_is_found_with_its_renewal(drill: Drill) -> None:
    drill.now += 100
    renew(drill)
    drill.states.cache.forget(KEY)
    drill.now += 100
    entry = drill.states.entry(KEY, drill.now)
    assert entry is not None and entry.is_heard
    assert entry.state.deadline_at == drill.now - 100 + 120
    renew(drill)
    assert drill.states.entry(SubjobKey("run7", "nobody"), drill.now) is None
    assert states_of(drill).look_up_seconds == 0.0, "who is not there has been looked for by nobody"
