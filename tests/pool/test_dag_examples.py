"""The examples of `dagman/examples`, as their README has one run them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.pool.dag import install
from tests.pool.dag_instrumented import htlease
from tests.pool.lab import PROJECT, Lab, write_for_job

EXAMPLES = PROJECT / "dagman" / "examples"
ENDED = "EXITING WITH STATUS 0"


def laid_out(lab: Lab, name: str) -> Path:
    place = lab.pool.job_directory(f"example-{name}")
    shutil.copytree(EXAMPLES / name, place, dirs_exist_ok=True)
    return place


def submit(lab: Lab, place: Path, file: str) -> Path:
    """Submit a DAG and return what DAGMan says of it."""
    lab.pool.run(["condor_submit_dag", "-f", file], cwd=place)
    return place / f"{file}.dagman.out"


def test_the_examples_run_to_their_end(lab: Lab) -> None:
    program = install(lab)
    instrument = ("dag", "instrument", "--script", program, "--defer", "2s")
    diamond = laid_out(lab, "diamond")
    write_for_job(diamond / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    htlease(lab, diamond, *instrument, "diamond.dag")
    nightly = laid_out(lab, "own-scripts")
    htlease(lab, nightly, *instrument, "nightly.dag")
    staging = laid_out(lab, "staging")
    (staging / "archive" / "input").mkdir(parents=True)
    (staging / "scratch").mkdir()
    (staging / "archive" / "input" / "text").write_text("five words to be counted\n")
    htlease(lab, staging, "stage", "init", "staging.toml", "--program", program)
    said = [
        submit(lab, diamond, "diamond.dag"),
        submit(lab, nightly, "nightly.dag"),
        submit(lab, staging, "staging.dag"),
    ]
    note = nightly / "nightly.dag.htlease.d" / "pre" / "fetch"
    lab.wait_for(note.exists, "the PRE script to wait for its list", 60)
    write_for_job(nightly / "list.txt", b"ann\nbo\n")
    lab.wait_for(lambda: all(ENDED in path.read_text() for path in said), "the DAGs to end", 180)
    assert [(diamond / f"{node}.out").read_text() for node in "AD"] == [
        "node A, attempt 1\n",
        "node D, attempt 1\n",
    ]
    assert (nightly / "sum.txt").read_text() == "7\n"
    assert (staging / "archive" / "output" / "words.txt").read_text().strip() == "5"
