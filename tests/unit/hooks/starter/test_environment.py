"""Environments as they stand in ads: read, added to, and read again by HTCondor's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htlease_hooks.starter.environment import (
    Unreadable,
    job_environment,
    merged_attribute,
    split_v2,
)


@pytest.mark.parametrize(
    ("lines", "environment"),
    [
        # As a starter of 25.14.1 wrote it for values with blanks, quotes and backslashes.
        (
            r"""Environment = "A=back\slash B=q''''x' 'y C=a\\"b E=end\ F= G=a'  'b Z=z\\" """,
            {
                "A": "back\\slash",
                "B": "q'x y",
                "C": 'a\\"b',
                "E": "end\\",
                "F": "",
                "G": "a  b",
                "Z": "z\\\\",
            },
        ),
        ('Environment = ""', {}),
        ("Cmd = 1", {}),
        ('Env = "A=1;B=two words"', {"A": "1", "B": "two words"}),
        ('EnvDelim = "|"\nEnv = "A=1;2|B="', {"A": "1;2", "B": ""}),
        ('Environment = "A=2"\nEnv = "A=1"', {"A": "2"}),
        ('environment = "A=1"\nEnvironment = "A=2"', {"A": "2"}),
    ],
)
def test_every_form_is_read(lines: str, environment: dict[str, str]) -> None:
    assert job_environment(lines) == environment


@pytest.mark.parametrize("line", ["Environment = strcat(A)", 'Environment = "A=\'open"'])
def test_what_cannot_be_read_is_told(line: str) -> None:
    with pytest.raises(Unreadable):
        job_environment(line)


def test_ours_replace_the_jobs_and_stand_last() -> None:
    text = merged_attribute({"HTLEASE_URL": "old", "Z": "end\\"}, {"HTLEASE_URL": "http://s"})
    assert text == '"Z=end\\ HTLEASE_URL=http://s"'


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_added_to_is_otherwise_unchanged(environment: dict[str, str]) -> None:
    text = merged_attribute(environment, {"HTLEASE_FENCE": "1"})
    kept = {name: value for name, value in environment.items() if name != "HTLEASE_FENCE"}
    assert job_environment(f"Environment = {text}") == {**kept, "HTLEASE_FENCE": "1"}


def test_arguments_are_split_as_htcondor_splits_them() -> None:
    assert split_v2("a 'b c'  d''e 'f''g' ''") == ["a", "b c", "de", "f'g", ""]
