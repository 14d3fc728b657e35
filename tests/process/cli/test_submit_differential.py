"""`htlease submit` against `condor_submit` itself: the same jobs, but for what is ours.

Both are dry runs of HTCondor 23.9.6 and 25.14.1, without a pool. What native refuses has to be
refused with the same words.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import submit_language
from tests.condor_submit import CondorSubmit
from tests.submit_comparison import differences, kinds

from htlease_cli.submit.submit_lines import Additions, appended

DATA = Path(__file__).parents[2] / "data" / "submit"
CASES = sorted(path.name for path in DATA.glob("*.sub"))
FILES, LEAST = 300, 5
#: How many kinds of differences are shown with a short file.
SHOWN = 8
#: What makes more than one job, and what is refused by 23.9.6 or by 25.14.1.
COUNTS = {
    "blank-items.sub": 3,
    "directories.sub": 2,
    "hash-items.sub": 3,
    "late.sub": 3,
    "slice.sub": 4,
    "statements.sub": 3,
}
REFUSED = {"trixie": {"shell.sub"}, "sid": {"statements.sub"}}


@pytest.fixture(scope="module", params=["trixie", "sid"])
def native(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> CondorSubmit:
    return CondorSubmit(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def place(native: CondorSubmit, request: pytest.FixtureRequest) -> Path:
    return native.programs.parent / re.sub(r"\W+", "-", request.node.name)


@dataclass(frozen=True)
class Both:
    """A directory and what both make of a file in it."""

    native: CondorSubmit
    place: Path

    @property
    def additions(self) -> Additions:
        return Additions(
            pyz=self.place / "htlease-ep.pyz",
            server_url="https://leases.example.org",
            workflow="own",
            token_path=f"{self.place}/tokens/$(Process)/htlease.token",
            submit_directory=self.place,
            submission_id="5ub1",
        )

    def differ(self, file: str, **environment: str) -> list[str]:
        """Return in what the jobs differ."""
        native = self.native.dry_run(self.place, file, **environment)
        lines = ("-append", appended(self.additions))
        ours = self.native.dry_run(self.place, *lines, file, **environment)
        return differences(native, ours, self.additions)


@pytest.fixture
def both(native: CondorSubmit, place: Path) -> Both:
    return Both(native, place)


@pytest.mark.parametrize("case", CASES)
def test_unusual_files_are_what_their_comments_say(
    native: CondorSubmit, place: Path, case: str
) -> None:
    shutil.copytree(DATA, place)
    seen = native.dry_run(place, case, PAYLOAD=str(place / "count.sh"))
    if case in REFUSED[native.suite]:
        assert seen.is_refused and "ERROR" in seen.said
    else:
        assert (seen.count, seen.is_refused) == (COUNTS.get(case, 1), False)
        assert len(seen.ads) == (1 if case == "late.sub" else seen.count)


@pytest.mark.parametrize("case", CASES)
def test_unusual_files_come_to_the_same_jobs(both: Both, case: str) -> None:
    shutil.copytree(DATA, both.place)
    assert both.differ(case, PAYLOAD=str(both.place / "count.sh")) == []


def test_files_of_debians_package_come_to_the_same_jobs(both: Both) -> None:
    both.place.mkdir()
    files = list(both.native.shipped_files())
    assert [file.name for file in files] == ["interactive.sub"]
    for file in files:
        shutil.copy(file, both.place)
        assert both.differ(file.name) == []


@pytest.mark.parametrize(
    "lines",
    [
        "+JobMaxRetries = 2",
        "MY.JobSuccessExitCode = 3",
        "+JobMaxRetries = 2\nsuccess_exit_code = 3",
        "+JobMaxRetries = 2\nmax_retries =",
        "+JobMaxRetries = 2\non_exit_remove = ExitCode == 4",
        "retry_until = ExitCode == 5",
        "retry_until = 5",
        "count = 0\nmax_retries = $(count)",
    ],
)
def test_attributes_that_are_forced_are_no_policy_of_retries(both: Both, lines: str) -> None:
    shutil.copytree(DATA, both.place)
    (both.place / "forced.sub").write_text(f"executable = count.sh\n{lines}\nqueue\n")
    assert both.differ("forced.sub") == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("container_image = a.sif", ""),
        ("universe = docker\ndocker_image = debian", "executable = /bin/cat"),
        ("", "universe = docker\ndocker_image = debian"),
        ("universe = vanilla", "universe = docker\ndocker_image = debian"),
        ("", "container_image = a.sif"),
        ("universe = container\ncontainer_image = a.sif", "universe = vanilla"),
        ("container_image = $(Item)\nqueue in (a.sif b.sif)", ""),
    ],
    ids=["image", "another", "late", "late-over-vanilla", "late-image", "early", "items"],
)
def test_the_first_queue_statement_says_whether_jobs_run_in_an_image(
    both: Both, before: str, after: str
) -> None:
    shutil.copytree(DATA, both.place)
    (both.place / "images.sub").write_text(
        f"executable = /bin/echo\n{before}\nqueue\n{after}\nqueue\n"
    )
    # That a later line comes to nothing is not said: ours have looked at it.
    assert kinds(both.differ("images.sub")) <= {"warnings"}


def test_files_of_the_whole_language_come_to_the_same_jobs(both: Both) -> None:
    submit_language.lay_out(both.place)
    file = both.place / "drawn.sub"

    def differ(text: bytes) -> list[str]:
        file.write_bytes(text)
        return both.differ(file.name, **submit_language.ENVIRONMENT)

    files = submit_language.chosen_apart(str(both.place), FILES, LEAST)
    used = Counter(name for one in files for name in one.productions)
    assert (
        len(files) == FILES and min(used[name] for name in submit_language.productions()) >= LEAST
    )
    found: dict[str, list[bytes]] = {}
    for one in files:
        for kind in kinds(differ(one.text)):
            found.setdefault(kind, []).append(one.text)
    shown = [str({kind: len(texts) for kind, texts in found.items()})]
    for kind, texts in list(found.items())[:SHOWN]:
        text = submit_language.shortest(texts[0], functools.partial(_is, kind, differ))
        shown += [
            "",
            f"{kind}, {len(texts)} of {FILES}:",
            text.decode("latin-1"),
            *differ(text)[:3],
        ]
    assert not found, "\n".join(shown)


def _is(kind: str, differ: Callable[[bytes], list[str]], text: bytes) -> bool:
    return kind in kinds(differ(text))
