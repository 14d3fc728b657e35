"""`python -m tests.mutants [MODULE ...]`: changes what decides in small ways, and counts who notices.

Ends with 1 below `SCORE_MIN_PERCENT`. tests/README.md says what counts; what is known is kept in
`.mutants`, so a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import hypothesis
import pytest

from tests.mutants.making import PROJECT, Mutant, make
from tests.mutants.records import HANG, Records
from tests.mutants.running import Loader, Plugin

SCORE_MIN_PERCENT = 90.0
FOLDER = PROJECT / ".mutants"
MODULES = (
    *(f"htlease/rules/{name}.py" for name in ("acquire", "attempt", "fenced_writes", "plan")),
    *(f"htlease/rules/{name}.py" for name in ("rollup", "start_number", "state")),
    *(f"htlease_server/auth/{name}.py" for name in ("authenticator", "job_tokens", "roles")),
    *(f"htlease_server/engine/{name}.py" for name in ("batch", "downtime", "execute")),
    *(f"htlease_server/engine/commit/{name}.py" for name in ("group_commit", "shared_commit")),
    *(f"htlease_server/engine/states/{name}.py" for name in ("memory_states", "state_source")),
)
TESTS = ("tests/unit/core", "tests/unit/server", "tests/contract")


def main() -> int:
    """Make the mutants, run them and print the score; return the exit status."""
    asked = _arguments()
    os.chdir(PROJECT)  # where mutmut looks for its settings
    if asked.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    modules = [name for name in MODULES if not asked.modules or Path(name).stem in asked.modules]
    made = [make(name, FOLDER) for name in MODULES]
    loader = Loader(made, FOLDER)
    records = Records(FOLDER, made, asked.tests)
    mutants = [one for each in made if each.module in modules for one in each.mutants]
    counted = [one for one in mutants if one.excused is None]
    if asked.sample:
        counted = random.Random(asked.seed).sample(counted, min(asked.sample, len(counted)))
    left = [one for one in counted if (one.module, one.name) not in records.noticed]
    print(f"{len(mutants)} mutants, {len(counted)} to be noticed, {len(left)} still to be run")
    start = time.monotonic()
    if left:
        plugin = _run(left, loader, records, asked)
        for name in plugin.left_out:
            print(f"not asked, for it fails or takes long without any change: {name}")
    took, spent = time.monotonic() - start, sum(os.times()[:4])
    print(f"took {took / 60:.0f} minutes with {asked.workers} at a time, {spent:.0f} CPU seconds")
    excused = [one for one in mutants if one.excused is not None]
    return _tell(modules, counted, excused, records)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="as `plan` or `group_commit`")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--tests", nargs="+", default=TESTS, metavar="PATH", help="ask these only, which is quick"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    return parser.parse_args()


def _run(
    mutants: list[Mutant], loader: Loader, records: Records, asked: argparse.Namespace
) -> Plugin:
    sys.meta_path.insert(0, loader)
    # The same examples each time, and the first that fails is enough.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None, phases=phases, deadline=None
    )
    hypothesis.settings.load_profile("mutants")
    plugin = Plugin(mutants, loader, records, asked.workers)
    options = [
        "-q",
        "-s",
        "--disable-warnings",
        "-m",
        "not slow",
        "-o",
        "tmp_path_retention_policy=none",
    ]
    options += [
        part for name in ("xdist", "cacheprovider", "timeout") for part in ("-p", f"no:{name}")
    ]
    ended = pytest.main([*options, *asked.tests], plugins=[plugin])
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(int(ended))
    return plugin


def _tell(
    modules: list[str], counted: list[Mutant], excused: list[Mutant], records: Records
) -> int:
    noticed = {one: records.noticed.get((one.module, one.name)) for one in counted}
    for one in sorted(counted, key=lambda one: (one.module, one.line)):
        if noticed[one] is None:
            print(f"{one.place}: {one.change}")
    print(f"\n{'module':28} mutants noticed (hanging) survived  score  text  equivalent")
    for module in modules:
        _print_row(
            module,
            {one: by for one, by in noticed.items() if one.module == module},
            [one for one in excused if one.module == module],
        )
    score = _print_row("all", noticed, excused)
    return int(score < SCORE_MIN_PERCENT)


def _print_row(what: str, noticed: dict[Mutant, str | None], excused: Iterable[Mutant]) -> float:
    count = sum(by is not None for by in noticed.values())
    hangs = sum(by == HANG for by in noticed.values())
    score = 100.0 * count / max(1, len(noticed))
    texts = [one.excused == "text" for one in excused]
    print(
        f"{what:28} {len(noticed):7} {count:7} {hangs:9} {len(noticed) - count:8}  {score:4.1f} % {sum(texts):5} {len(texts) - sum(texts):11}"
    )
    return score


if __name__ == "__main__":
    sys.exit(main())
