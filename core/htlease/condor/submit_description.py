"""A submit description as HTCondor's bindings read it; pure, no bindings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import PurePosixPath

#: The universes whose jobs have sandboxes to which files are transferred.
_WITH_TRANSFER = ("vanilla", "docker", "container")
_WRAPPER_NAME = re.compile(r"htlease-ep[^/]*\.pyz")


class Commands(MutableMapping[str, str]):
    """The commands of a submit description; names have no case but keep their spelling."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        self._spelled = {name.lower(): (name, value) for name, value in commands.items()}

    def __getitem__(self, name: str) -> str:
        return self._spelled[name.lower()][1]

    def __setitem__(self, name: str, value: str) -> None:
        spelling = self._spelled.get(name.lower(), (name, ""))[0]
        self._spelled[name.lower()] = (spelling, value)

    def __delitem__(self, name: str) -> None:
        del self._spelled[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return (spelling for spelling, _ in self._spelled.values())

    def __len__(self) -> int:
        return len(self._spelled)


@dataclass(frozen=True)
class Description:
    """A submit description with its queue statement worked out."""

    commands: Commands
    #: Jobs for each item, or jobs in all when there are no items.
    count: int = 1
    items: tuple[Mapping[str, str], ...] | None = None

    @property
    def job_count(self) -> int:
        """How many jobs it queues."""
        return self.count * (1 if self.items is None else len(self.items))


def sends_files(commands: Commands) -> bool:
    """Tell whether the jobs run in sandboxes to which HTCondor transfers files."""
    universe = commands.get("universe", "vanilla").strip().lower()
    should = commands.get("should_transfer_files", "").strip().lower()
    return universe in _WITH_TRANSFER and should not in ("no", "false", "never")


def is_wrapper(executable: str) -> bool:
    """Tell whether an `executable` is the wrapper itself."""
    return _WRAPPER_NAME.fullmatch(PurePosixPath(executable.strip()).name) is not None
