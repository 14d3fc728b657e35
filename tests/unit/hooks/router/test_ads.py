"""The ads of the Job Router's hooks: what is added, what is left out, what is never touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htlease_hooks.router import ads

ROUTE = b'[ Name = "Site"; TargetUniverse = 5 ]'
SOURCE = b"""\
ClusterId = 19
GlobalJobId = "ap#19.0#1795225431"
Odd = "x = \\"y\\" ------ \\n"
ProcId = 0
Requirements = false && strcat("a", B) =!= C
"""

names = st.from_regex(r"[A-Z][A-Za-z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: not name.lower().startswith("htlease")
)
values = st.text(st.characters(blacklist_characters="\n", codec="utf-8"), max_size=40)


def test_the_source_stands_after_the_route() -> None:
    assert ads.split(ROUTE + b"\n------\n" + SOURCE) == (ROUTE, SOURCE)


def test_without_a_separator_all_of_it_is_the_ad() -> None:
    assert ads.split(SOURCE) == (b"", SOURCE)


def test_a_value_of_dashes_is_no_separator() -> None:
    ad = b'A = "------"\n'
    assert ads.split(ROUTE + b"\n------\n" + ad + b"------\nB = 1\n") == (
        *(ROUTE, ad + b"------\nB = 1\n"),
    )


@given(st.dictionaries(names, values, max_size=8))
def test_no_line_that_is_not_ours_changes(attributes: dict[str, str]) -> None:
    ad = "".join(f"{name} = {value}\n" for name, value in attributes.items()).encode()
    stamped = ads.with_attributes(ad, {ads.KEY: "w/s"})
    assert stamped.startswith(ad)
    assert stamped.removeprefix(ad).lstrip(b"\n") == b'HTLeaseKey = "w/s"\n'


def test_a_last_line_without_an_end_gets_one() -> None:
    assert ads.with_attributes(b"A = 1", {"B": 2}) == b"A = 1\nB = 2\n"


@pytest.mark.parametrize(
    "name", [ads.SOURCE, ads.GENERATION, ads.RECORDED, ads.STATE, ads.ATTEMPT, ads.FENCE]
)
def test_what_tells_of_an_earlier_copy_is_left_out(name: str) -> None:
    ad = f'A = 1\n{name.lower()} = "old"\nB = 2\n'.encode()
    assert ads.with_attributes(ad, {}) == b"A = 1\nB = 2\n"


def test_a_new_value_takes_the_place_of_an_old_one() -> None:
    ad = b'htleasekey = strcat("a", "/b")\nA = 1\n'
    assert ads.with_attributes(ad, {ads.KEY: "w/s"}) == b'A = 1\nHTLeaseKey = "w/s"\n'


def test_a_key_of_the_sources_own_is_kept() -> None:
    assert ads.key_of(ads.read(SOURCE + b'HTLeaseKey = "run7/s-12"\n')) == "run7/s-12"


def test_without_a_key_the_submission_gives_it() -> None:
    assert ads.key_of(ads.read(SOURCE)) == "ap-19-1795225431/0"


def test_a_copy_has_links_once_the_queue_has_given_it_an_id() -> None:
    routed = b'RoutedFromJobId = "19.0"\nClusterId = 21\nProcId = 0\n'
    assert ads.links_of(ads.read(routed)) is None
    links = ads.links_of(ads.read(routed + b'GlobalJobId = "ap#21.0#1"\n'))
    assert links == ads.Links("19.0", "21.0", "ap#21.0#1", "")
    assert links.mark == "ap#21.0#1"


def test_the_batch_systems_id_is_news() -> None:
    routed = (
        b'RoutedFromJobId = "19.0"\nClusterId = 21\nProcId = 0\nGlobalJobId = "ap#21.0#1"\n'
        b'GridJobId = "batch slurm x slurm/20260101/4711"\n'
    )
    links = ads.links_of(ads.read(routed))
    assert links is not None
    assert links.mark == "ap#21.0#1 batch slurm x slurm/20260101/4711"


@pytest.mark.parametrize(("text", "is_out"), [(b"false", True), (b"true", False), (b"0", False)])
def test_only_false_opts_out(text: bytes, is_out: bool) -> None:
    assert ads.is_opted_out(ads.read(b"HTLease = " + text + b"\n")) is is_out
