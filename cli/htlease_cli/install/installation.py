"""What one role's installation on this machine consists of: planning, doing and undoing it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.condor.condor_config import CondorConfig
from htlease.errors import BadConfig
from htlease_cli.file_install import (
    PYZ_LINK,
    fault_of_hook,
    look_at_programs,
    place_programs,
    remove_programs,
    restore_programs,
    write_whole,
)
from htlease_cli.install.roles import NAMES, Role
from htlease_cli.install.site_file import SiteFile, parse, render

KEYWORD = "HTLEASE"
#: Where a router's hooks find the agent.
AGENT_LINK = "agent.sock"
#: In the order in which HTCondor looks; the first forces, the second is for jobs that name none.
_STARTER_KEYWORDS = ("STARTER_JOB_HOOK_KEYWORD", "STARTER_DEFAULT_JOB_HOOK_KEYWORD")


@dataclass(frozen=True)
class Places:
    """Where a role's files go on this machine."""

    config_file: Path
    #: As HTCondor is told, and as it is on this machine: not the same for an image.
    hook_dir: str
    hook_path: Path
    #: Name of each link in the directory of hooks -> where it points.
    links: Mapping[str, str]

    @property
    def backup(self) -> Path:
        """Where a file of the site that stood in the way is kept; HTCondor reads no dot files."""
        return self.config_file.with_name(f".{self.config_file.name}.before-htlease")


def installed_file(path: Path) -> SiteFile | None:
    """Return what is in an installed configuration file; None when it is missing or foreign."""
    return parse(path.read_text()) if path.is_file() else None


def usual_hook_directory(config: CondorConfig) -> str:
    """Return the directory that the configuration files name when nothing else is set."""
    return f"{config.value('LIBEXEC') or '/usr/libexec/condor'}/htlease"


def hook_directory(config: CondorConfig) -> str:
    """Return the directory in which HTCondor looks for the hooks."""
    return config.value("HTLEASE_HOOK_DIR") or usual_hook_directory(config)


def places(config: CondorConfig, role: Role, hook_dir: str) -> Places:
    """Return where the files of a role go; raises BadConfig."""
    links = dict.fromkeys(role.hooks.values(), PYZ_LINK)
    if role.name == "router":
        # HTCondor gives a router's hooks no arguments, so they look for the agent beside them.
        socket = config.value("HTLEASE_AGENT_SOCKET")
        links[AGENT_LINK] = socket or f"{config.value('LOCK')}/htlease.agent"
    file = config.directory() / role.file_name
    return Places(file, hook_dir, config.below(hook_dir), links)


def keyword_to_chain(config: CondorConfig) -> str | None:
    """Return the keyword of the site's own starter hooks, or None."""
    for knob in _STARTER_KEYWORDS:
        keyword = config.value(knob)
        if keyword and keyword != KEYWORD:
            return keyword
    return None


def chosen_settings(previous: SiteFile | None, given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the settings of the new file: what was given now, else what was given before."""
    settings = dict(previous.settings) if previous else {}
    settings.update({name: value for name, value in given.items() if value is not None})
    return {name: value for name, value in settings.items() if value}


def check_own(where: Places, is_forced: bool) -> None:
    """Raise BadConfig when the file in place is not as an installation left it."""
    if is_forced or not where.config_file.exists():
        return
    found = installed_file(where.config_file)
    if found is None:
        why = "was not written by `htlease hooks install`"
    elif found.is_changed:
        why = "was changed after it was installed"
    else:
        return
    raise BadConfig(
        f"{where.config_file} {why}, so it is left as it is; put your changes into a file of your "
        "own beside it, or give --force"
    )


def difference(where: Places, text: str) -> str:
    """Return what an installation would change in the configuration file, as a diff."""
    exists = where.config_file.exists()
    before = where.config_file.read_text() if exists else ""
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            text.splitlines(keepends=True),
            str(where.config_file) if exists else "/dev/null",
            str(where.config_file),
        )
    )


def install(config: CondorConfig, role: Role, where: Places, pyz: bytes, text: str) -> None:
    """Put programs and configuration in place; raises BadConfig, and then all is as before.

    The programs come first: with a configuration that names a hook which is not there an execution
    point takes one job after the other and fails each.
    """
    programs = look_at_programs(where.hook_path)
    before = where.config_file.read_bytes() if where.config_file.exists() else None
    place_programs(where.hook_path, pyz, where.links)
    try:
        _write_config(where, text, before)
        check_result(config, role, where)
    except BadConfig as error:
        _restore_config(where, before)
        restore_programs(where.hook_path, programs)
        raise BadConfig(f"{error}; nothing was changed") from None


def _write_config(where: Places, text: str, before: bytes | None) -> None:
    try:
        where.config_file.parent.mkdir(parents=True, exist_ok=True)
        if before is not None and parse(before.decode(errors="replace")) is None:
            write_whole(where.backup, before, 0o644)
        write_whole(where.config_file, text.encode(), 0o644)
    except OSError as error:
        raise BadConfig(f"{where.config_file}: {error.strerror or error}; are you root?") from None


def _restore_config(where: Places, before: bytes | None) -> None:
    if before is None:
        where.config_file.unlink(missing_ok=True)
    elif where.config_file.read_bytes() != before:
        write_whole(where.config_file, before, 0o644)
    if before is not None and parse(before.decode(errors="replace")) is None:
        where.backup.unlink(missing_ok=True)


def check_result(config: CondorConfig, role: Role, where: Places) -> None:
    """Raise BadConfig unless HTCondor now uses our hooks and may run each."""
    paths = config.values(tuple(role.hooks))
    for knob, link in role.hooks.items():
        path = paths.get(knob)
        if path is None:
            continue  # left out for this version, or for want of a setting
        if path != f"{where.hook_dir}/{link}":
            raise BadConfig(f"{knob} is {path} in {config.main}: another file sets it as well")
        fault = fault_of_hook(config.below(path))
        if fault is not None:
            raise BadConfig(f"{path}: {fault}, so HTCondor would not run it")


def uninstall(where: Places) -> bool:
    """Take a role's files away, and put back what stood in their place; False: nothing there."""
    was_there = where.config_file.exists()
    try:
        if where.backup.exists():
            where.backup.replace(where.config_file)
        else:
            where.config_file.unlink(missing_ok=True)
        remove_programs(where.hook_path, where.links)
    except OSError as error:
        raise BadConfig(f"{error.filename}: {error.strerror or error}; are you root?") from None
    return was_there


def new_text(role: Role, version: str, settings: Mapping[str, str]) -> str:
    """Return the configuration file that an installation writes."""
    return render(role.name, version, settings, role.text)


def describe(role: Role) -> str:
    """Return how a person calls the role."""
    return NAMES[role.name]
