"""What DAGMan says to a script, and which try of a node it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_dagman.scripts.invocation import MACROS, Call, read_call, words_for


def call(kind: str = "post", ad: Path | None = None, **macros: str) -> Call:
    given = {
        "JOB": "A",
        "RETRY": "0",
        "MAX_RETRIES": "2",
        "DAGID": "33",
        "JOBID": "34.0",
        "RETURN": "0",
        **macros,
    }
    words = [word for pair in given.items() for word in pair]
    return read_call(kind, words, {} if ad is None else {"_CONDOR_JOB_AD": str(ad)})


@pytest.mark.parametrize("kind", MACROS)
def test_the_words_of_a_script_line_are_whole_macros(kind: str) -> None:
    words = words_for(kind, "/d/x.htlease.json", also=["EXIT_CODES", "NODE", "RETRY"])
    assert words[:2] == [kind, "/d/x.htlease.json"]
    names = words[2::2]
    assert words[3::2] == [f"${name}" for name in names]
    assert len(set(names)) == len(names)
    assert "EXIT_CODES" in names and "NODE" not in names


def test_a_try_is_named_by_dagmans_job_and_the_retry(tmp_path: Path) -> None:
    ad = tmp_path / "ad"
    ad.write_text('ClusterId = 33\nGlobalJobId = "ap1#33.0#1795"\nNumJobStarts = 2\n')
    read = call(ad=ad, RETRY="1")
    assert read.try_id == "ap1#33.0#1795/1"
    assert read.dagman_start == 3


def test_dagmans_ad_tells_which_files_were_submitted_as_one(tmp_path: Path) -> None:
    ad = tmp_path / "ad"
    options = "-p 0 -f -l . -Lockfile a.dag.lock -AutoRescue 1 -Dag {} -CsdVersion $X$ -Dagman /d"
    ad.write_text(f'Arguments = "{options.format("a.dag")}"\n')
    assert call(ad=ad).files == ["a.dag"]
    ad.write_text(f'Args = "{options.format("a.dag -Dag ../b.dag")}"\n')
    assert call(ad=ad).files == ["a.dag", "../b.dag"]


def test_without_dagmans_ad_its_number_names_the_try() -> None:
    read = call()
    assert read.try_id == "dagman#33/0"
    assert read.dagman_start is None


def test_macros_are_whole_words_of_any_case_and_the_unknown_stay() -> None:
    words = ["x.sh", "$JOB", "$node", "a$RETRY", "$RETURN", "$EXIT_CODE_LIST", "$"]
    assert call(RETURN="-9").expand(words) == [
        *("x.sh", "A", "A", "a$RETRY", "-9", "$EXIT_CODE_LIST", "$"),
    ]


def test_a_word_without_its_pair_is_refused() -> None:
    with pytest.raises(BadConfig, match="pairs"):
        read_call("pre", ["JOB", "A", "RETRY"], {})


def test_a_macro_that_dagman_did_not_replace_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"RETRY is '\$RETRY', not a number"):
        call(RETRY="$RETRY")


def test_a_missing_macro_is_named() -> None:
    with pytest.raises(BadConfig, match="JOBID, RETURN not given"):
        read_call("post", ["JOB", "A", "RETRY", "0", "MAX_RETRIES", "0", "DAGID", "3"], {})
