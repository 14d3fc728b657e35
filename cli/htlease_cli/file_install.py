"""Putting files in place and taking them away, each in one step; knows nothing of HTCondor.

The pyz is kept under a name with its digest and reached by a link: a wrapper that is at work reads
on from the file that it was started from, whatever has been installed since.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig

PYZ_LINK = "htlease-ep.pyz"
_WORLD_WRITABLE = stat.S_IWOTH


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there as a whole or not at all."""
    # HTCondor reads no file of a configuration directory that begins with a dot.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)


def link_whole(path: Path, target: str) -> None:
    """Make a symbolic link, in place of whatever file or link was there."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def pyz_name(content: bytes) -> str:
    """Return the name under which a pyz is kept."""
    return f"htlease-ep-{hashlib.sha256(content).hexdigest()[:12]}.pyz"


def place_programs(directory: Path, pyz: bytes, links: Mapping[str, str]) -> None:
    """Put the pyz and links with their targets into a directory; raises BadConfig."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        kept = directory / pyz_name(pyz)
        if not kept.is_file() or kept.read_bytes() != pyz:
            write_whole(kept, pyz, 0o755)
        link_whole(directory / PYZ_LINK, kept.name)
        for link, target in links.items():
            link_whole(directory / link, target)
    except OSError as error:
        raise BadConfig(
            f"{directory}: {error.strerror or error}; are you root, or is another --hook-dir meant?"
        ) from None


@dataclass(frozen=True)
class ProgramsBefore:
    """What a directory held before an installation."""

    #: None when there was no directory.
    names: frozenset[str] | None
    #: Where the link to the pyz pointed.
    pyz: str | None


def look_at_programs(directory: Path) -> ProgramsBefore:
    """Remember what a directory holds."""
    link = directory / PYZ_LINK
    return ProgramsBefore(
        frozenset(path.name for path in directory.iterdir()) if directory.is_dir() else None,
        str(link.readlink()) if link.is_symlink() else None,
    )


def restore_programs(directory: Path, before: ProgramsBefore) -> None:
    """Take away what has come since, and let the link point to the pyz that it had."""
    if before.pyz is not None:
        link_whole(directory / PYZ_LINK, before.pyz)
    for path in list(directory.iterdir()):
        if path.name not in (before.names or ()):
            path.unlink()
    if before.names is None:
        directory.rmdir()


def remove_programs(directory: Path, links: Iterable[str]) -> None:
    """Take links away, and with the last hook's all else that was placed."""
    for link in links:
        if (directory / link).is_symlink():
            (directory / link).unlink()
    if not directory.is_dir() or any(placed_links(directory)):
        return
    for path in [*directory.glob("htlease-ep-*.pyz"), directory / PYZ_LINK]:
        path.unlink(missing_ok=True)
    if not any(directory.iterdir()):
        directory.rmdir()


def placed_links(directory: Path) -> list[str]:
    """Return the names of the hook links in a directory."""
    if not directory.is_dir():
        return []
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.is_symlink() and str(path.readlink()) == PYZ_LINK
    )


def fault_of_hook(path: Path) -> str | None:
    """Return why HTCondor would not run a hook at this path, or None.

    Source: `validateHookPath`; measured on 23.9.6 and 25.14.1: with such a hook every start on an
    execution point fails, and is tried again without end.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.strerror or "cannot be looked at"
    if mode & _WORLD_WRITABLE:
        return "everybody may write to it"
    if not mode & stat.S_IXUSR:
        return "it is not executable"
    if path.parent.stat().st_mode & _WORLD_WRITABLE:
        return f"everybody may write to {path.parent}"
    return None
