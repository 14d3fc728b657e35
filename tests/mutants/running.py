"""Runs tests against mutants, each in a fork of a process that has everything loaded.

First every test runs once by itself, to learn which lines it runs and how long it takes. Then a
mutant meets the tests that run its line, those first that noticed others of its function, until one
of them fails.
"""

from __future__ import annotations

import functools
import gc
import importlib.abc
import importlib.util
import itertools
import json
import os
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test

from tests.mutants.making import Made, Mutant
from tests.mutants.records import HANG, Learned, Records

#: A mutant that tests worth so many seconds do not notice has survived.
BUDGET_SECONDS = 12.0
#: By then a test hangs: so many seconds, and so many times what it takes.
HANGS_SECONDS, HANGS_TIMES = 8.0, 20.0
#: And so many times that when it is asked again.
PATIENCE = 5.0
#: Tests that take longer are not asked, nor is one that hangs.
_LONG_SECONDS, _ALONE_SECONDS = 8.0, 600.0
_MEMORY_MAX_BYTES = 4 << 30


class Loader(importlib.abc.MetaPathFinder):
    """Imports modules with their mutants in them."""

    def __init__(self, made: Iterable[Made], folder: Path) -> None:
        self.paths: dict[str, Path] = {}
        for one in made:
            path = folder / one.module
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(one.code)
            self.paths[one.module.removesuffix(".py").replace("/", ".")] = path

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        made = self.paths.get(fullname)
        if made is None:
            return None
        loader = SourceFileLoader(fullname, str(made))
        return importlib.util.spec_from_file_location(fullname, made, loader=loader)


class Forks:
    """Work in forks of this process, a few at a time."""

    def __init__(self, count: int, folder: Path) -> None:
        self._count = count
        self._folder = folder
        self._going: dict[int, Any] = {}

    def run(self, work: Iterable[tuple[Any, Callable[[], object]]]) -> Iterator[tuple[Any, Any]]:
        """Yield the name of each work with its result, which is `HANG` where the fork was killed."""
        for name, call in work:
            if len(self._going) >= self._count:
                yield self._wait()
            self._start(name, call)
        while self._going:
            yield self._wait()

    def _start(self, name: Any, call: Callable[[], object]) -> None:
        pid = os.fork()
        if pid:
            self._going[pid] = name
            return
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_MAX_BYTES, _MEMORY_MAX_BYTES))
            self._result(os.getpid()).write_text(json.dumps(call()))
        except BaseException:  # of pytest, or ours: nothing has been noticed
            self._result(os.getpid()).write_text("null")
            with (self._folder / "errors.log").open("a") as log:
                traceback.print_exc(file=log)
        finally:
            os._exit(0)

    def _wait(self) -> tuple[Any, Any]:
        pid, status = os.wait()
        while pid not in self._going:
            pid, status = os.wait()
        # What a killed test has started.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        path = self._result(pid)
        result = HANG if os.WIFSIGNALED(status) else json.loads(path.read_text())
        path.unlink(missing_ok=True)
        return self._going.pop(pid), result

    def _result(self, pid: int) -> Path:
        return self._folder / f"{pid}.json"


def _give_up(number: int, frame: FrameType | None) -> None:
    pytest.fail(f"takes more than {_LONG_SECONDS:g} seconds")


class Plugin:
    """Takes the place of pytest's loop over the tests that it has collected."""

    def __init__(
        self, mutants: list[Mutant], loader: Loader, records: Records, workers: int
    ) -> None:
        self._mutants = mutants
        self._loader = loader
        self._records = records
        self._workers = workers
        self._noticed: Counter[tuple[str, str | None]] = Counter()
        self.left_out: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items if "postgres" not in item.nodeid}
        gc.collect()
        gc.freeze()
        forks = Forks(self._workers, self._records.folder)
        learned = self._learn(items, forks)
        # On a busy machine a test may only seem to hang, so it gets more time before that counts.
        hung = self._ask(self._mutants, items, learned, forks, patience=1.0)
        for mutant in self._ask(hung, items, learned, forks, patience=PATIENCE):
            self._records.add(mutant, HANG)
        return True

    def _ask(
        self,
        mutants: list[Mutant],
        items: dict[str, pytest.Item],
        learned: dict[str, Learned],
        forks: Forks,
        patience: float,
    ) -> list[Mutant]:
        """Ask who notices each mutant; return those with which a test did not end."""
        hung = []
        asked = ((one, self._question(one, items, learned, patience)) for one in mutants)
        start = time.monotonic()
        for number, (mutant, by) in enumerate(forks.run(asked), 1):
            if by == HANG:
                hung.append(mutant)
            else:
                self._records.add(mutant, by)
                self._noticed[mutant.function, by] += 1
                self._noticed[mutant.module, by] += 1
            if number % 20 == 0 or number == len(mutants):
                seconds = time.monotonic() - start
                print(f"{number} of {len(mutants)} in {seconds:.0f} s", flush=True)
        return hung

    def _learn(self, items: dict[str, pytest.Item], forks: Forks) -> dict[str, Learned]:
        learned = self._records.learned(items)
        unknown = [item for name, item in items.items() if name not in learned]
        print(f"learning what {len(unknown)} of {len(items)} tests run", flush=True)
        by_file = [list(group) for _, group in itertools.groupby(unknown, lambda item: item.path)]
        found = self._traced_in(by_file, forks)
        # A test that hangs takes the others of its file along.
        missed = [[item] for item in unknown if item.nodeid not in found]
        learned |= found | self._traced_in(missed, forks)
        # A test that fails by itself tells nothing of mutants.
        usable = {name: one for name, one in learned.items() if one.seconds >= 0}
        self.left_out = [name for name in items if name not in usable]
        return usable

    def _traced_in(self, groups: list[list[pytest.Item]], forks: Forks) -> dict[str, Learned]:
        found: dict[str, Learned] = {}
        for _, result in forks.run((None, functools.partial(self._traced, one)) for one in groups):
            if isinstance(result, dict):
                found |= {name: Learned(*one) for name, one in result.items()}
                for name in result:
                    self._records.add_learned(name, found[name])
        return found

    def _traced(self, items: list[pytest.Item]) -> dict[str, Learned]:
        names = {str(path): name for name, path in self._loader.paths.items()}
        tracer = coverage.Coverage(data_file=None, include=list(names), config_file=False)
        tracer.start()
        seconds = {}
        signal.signal(signal.SIGPROF, _give_up)
        for item, after in zip(items, [*items[1:], None], strict=True):
            tracer.switch_context(item.nodeid)
            signal.setitimer(signal.ITIMER_PROF, _LONG_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, _ALONE_SECONDS)
            before = sum(os.times()[:4])  # with the processes that it started
            reports = runtestprotocol(item, log=False, nextitem=after)
            took = sum(os.times()[:4]) - before
            seconds[item.nodeid] = -1.0 if any(one.failed for one in reports) else took
        signal.setitimer(signal.ITIMER_PROF, 0)
        tracer.stop()
        data = tracer.get_data()
        lines: dict[str, dict[str, list[int]]] = {name: {} for name in seconds}
        for path in data.measured_files():
            for line, contexts in data.contexts_by_lineno(path).items():
                for context in contexts:
                    if context in lines:
                        lines[context].setdefault(names[path], []).append(line)
        return {name: Learned(took, lines[name]) for name, took in seconds.items()}

    def _question(
        self,
        mutant: Mutant,
        items: dict[str, pytest.Item],
        learned: dict[str, Learned],
        patience: float,
    ) -> Callable[[], object]:
        def rank(name: str) -> tuple[int, int, float]:
            function, module = (
                self._noticed[what, name] for what in (mutant.function, mutant.module)
            )
            return -function, -module, learned[name].seconds

        def ask() -> str | None:
            module = mutant.module.removesuffix(".py").replace("/", ".")
            reach = [
                name
                for name, one in learned.items()
                if any(line in mutant.lines for line in one.lines.get(module, ()))
            ]
            set_mutant_under_test(f"{module}.{mutant.name}")
            budget, chosen = BUDGET_SECONDS, []
            for name in sorted(reach, key=rank):
                chosen.append(items[name])
                budget -= learned[name].seconds
                if budget < 0:
                    break
            for item, after in zip(chosen, [*chosen[1:], None], strict=True):
                seconds = HANGS_SECONDS + HANGS_TIMES * learned[item.nodeid].seconds
                signal.setitimer(signal.ITIMER_REAL, seconds * patience)
                reports = runtestprotocol(item, log=False, nextitem=after)
                if any(report.failed for report in reports):
                    return item.nodeid
            return None

        return ask
