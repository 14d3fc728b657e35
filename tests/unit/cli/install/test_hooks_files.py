"""The configuration files that come with htlease, and those that an installation leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from htlease.condor.condor_config import find_config, parse_version
from htlease.errors import BadConfig
from htlease_cli.doctor.hook_checks import HOOKS
from htlease_cli.file_install import fault_of_hook
from htlease_cli.install.roles import FILES, read_role
from htlease_cli.install.site_file import parse, render
from htlease_hooks.cli import HOOKS as PROGRAMS


def test_every_hook_of_a_role_is_one_that_the_pyz_knows() -> None:
    configured = {knob: link for role in FILES for knob, link in read_role(role).hooks.items()}
    assert set(configured.values()) == set(PROGRAMS)
    assert set(configured) == set(HOOKS)
    for knob, link in configured.items():
        keyword_free = knob.partition("_HOOK_")[2].lower()
        assert link in (keyword_free, f"router_{keyword_free}")


def test_a_file_is_read_as_it_was_written() -> None:
    settings = {"HTLEASE_URL": "https://l/?a=b#c", "HTLEASE_CHAIN": ""}
    text = render("ep", "1.2", settings, "# role\n\nFOO = 1\n")
    assert text.endswith("\n# role\n\nFOO = 1\n")
    found = parse(text)
    assert found is not None
    assert (found.version, found.is_changed) == ("1.2", False)
    assert found.settings == {"HTLEASE_URL": "https://l/?a=b#c"}


def test_a_setting_of_the_role_itself_is_not_taken_for_a_choice() -> None:
    found = parse(render("ep", "1.2", {}, "HTLEASE_URL = x\n"))
    assert found is not None and found.settings == {}


@pytest.mark.parametrize("change", ["HTLEASE_TTL = 9\n", " ", "\n"])
def test_any_change_is_noticed(change: str) -> None:
    found = parse(render("ap", "1.2", {"HTLEASE_URL": "u"}, "A = 1\n") + change)
    assert found is not None and found.is_changed
    assert found.settings == {"HTLEASE_URL": "u"}


@pytest.mark.parametrize("text", ["", "FOO = 1\n", "# htlease hooks install\nFOO = 1\n"])
def test_a_file_without_the_seal_is_not_ours(text: str) -> None:
    assert parse(text) is None


def test_a_configuration_that_is_named_wins_and_must_exist(tmp_path: Path) -> None:
    for place in ("etc/condor", "etc/condor-ce"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "condor_config").touch()
    named = {"CONDOR_CONFIG": "/etc/condor-ce/condor_config"}
    assert find_config(named, tmp_path).main == tmp_path / "etc/condor-ce/condor_config"
    with pytest.raises(BadConfig, match="is not a file"):
        find_config({"CONDOR_CONFIG": "ONLY_ENV"}, tmp_path)
    with pytest.raises(BadConfig, match="say which is meant"):
        find_config({}, tmp_path)
    (tmp_path / "etc/condor-ce/condor_config").unlink()
    assert find_config({}, tmp_path).main == tmp_path / "etc/condor/condor_config"
    (tmp_path / "etc/condor/condor_config").unlink()
    with pytest.raises(BadConfig, match="set CONDOR_CONFIG"):
        find_config({}, tmp_path)


def test_versions_are_compared_as_numbers() -> None:
    assert parse_version("25.14.1") > parse_version("25.4.0") > parse_version("23.9.6")
    assert parse_version("") == ()


def test_a_hook_path_is_judged_as_htcondor_does(tmp_path: Path) -> None:
    directory = tmp_path / "hooks"
    directory.mkdir(mode=0o755)
    hook = directory / "prepare_job"
    assert fault_of_hook(hook) == "No such file or directory"
    hook.touch(0o644)
    assert fault_of_hook(hook) == "it is not executable"
    hook.chmod(0o757)
    assert fault_of_hook(hook) == "everybody may write to it"
    hook.chmod(0o755)
    assert fault_of_hook(hook) is None
    directory.chmod(0o777)
    assert "everybody may write" in (fault_of_hook(hook) or "")
