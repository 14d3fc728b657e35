"""What an ad says of a token to come and of a wrapper's own options."""

from __future__ import annotations

import pytest

from htlease_hooks.starter.job_inputs import brings_token, wrapper_options


@pytest.mark.parametrize(
    ("line", "is_there"),
    [
        ('TransferInput = "plan.toml,htlease.token"', True),
        ('TransferInput = "htlease.token"', True),
        ('transferinput = "/home/ann/htlease.token, data"', True),
        ('TransferInput = strcat("in.txt,", "/home/ann/htlease.token")', True),
        ('TransferInput = "x-htlease.token"', False),
        ('TransferInput = "htlease.token.old"', False),
        ('TransferInput = "brought/"', False),
        ('TransferOutput = "htlease.token"', False),
        ("", False),
    ],
)
def test_a_token_among_the_input_is_seen(line: str, is_there: bool) -> None:
    assert brings_token(f"ClusterId = 1\n{line}\nProcId = 0\n") == is_there


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (
            'Arguments = "run --server https://l --key run7/a -- ./x --key y"',
            {"--server": "https://l", "--key": "run7/a"},
        ),
        ('Arguments = "run --key=run7/a"', {"--key": "run7/a"}),
        ("Arguments = \"run --key 'run7/a' -- x\"", {"--key": "run7/a"}),
        ('Args = "run --server http://l:1 -- x"', {"--server": "http://l:1"}),
        ('Arguments = "run -- ./x --key y"', {}),
        ('Arguments = "run \'not closed"', {}),
        ("", {}),
    ],
)
def test_what_a_wrapper_was_told(line: str, options: dict[str, str]) -> None:
    assert wrapper_options(f"ClusterId = 1\n{line}\n") == options
