"""What this process was given at its start, which the shell in front of it and Python change.

Shells drop, add and reorder variables; Python ignores SIGPIPE and SIGXFSZ, and sets LC_CTYPE in the
C locale (PEP 538). The payload shall see none of it. This file parses on any Python 3.
"""

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Python ignores these from its start on, which an exec would pass on to the payload.
IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
#: The prelude exports what it hides from the interpreter under such names.
_KEPT = b"htlease_kept_"


class Entries(dict):  # type: ignore[type-arg]
    """An environment for `os.execve` and `os.posix_spawn` that keeps order and doubled names."""

    def __init__(self, entries: "Iterable[bytes]") -> None:
        """Take `NAME=VALUE` entries; what is none cannot be passed on."""
        # An entry that begins with `=` has it in its name.
        cuts = [(entry, entry.find(b"=", 1)) for entry in entries]
        pairs = [(entry[:at], entry[at + 1 :]) for entry, at in cuts if at > 0]
        super().__init__((name, value) for name, value in reversed(pairs))
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def keys(self) -> "list[bytes]":  # type: ignore[override]
        return [name for name, _ in self._pairs]

    def values(self) -> "list[bytes]":  # type: ignore[override]
        return [value for _, value in self._pairs]


class ProcessStart:
    """Environment and ignored signals as they were before any shell or interpreter."""

    def __init__(
        self,
        entries: "Sequence[bytes]",
        ignored: "frozenset[int]" = frozenset(),
        unknown: str = "",
    ) -> None:
        #: The environment, `NAME=VALUE` each.
        self.entries = tuple(entries)
        #: Which of IGNORED_BY_PYTHON were ignored before.
        self.ignored = ignored
        #: What could not be found out, for people.
        self.unknown = unknown

    @property
    def to_reset(self) -> "frozenset[int]":
        """The signals that have to be set back to their default for the payload."""
        return frozenset(IGNORED_BY_PYTHON - self.ignored)

    def environ(self) -> "dict[str, str]":
        """Return the environment by name; the first of doubled names counts, as for getenv."""
        return {
            os.fsdecode(name): os.fsdecode(value)
            for name, value in dict.items(Entries(self.entries))
        }

    def with_changes(self, environ: "Mapping[str, str]") -> "Entries":
        """Return an environment of these variables in which what was given stands as it was."""
        wanted = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
        given = Entries(self.entries)
        before = dict(dict.items(given))
        same = {name for name, value in before.items() if wanted.get(name) == value}
        kept = [pair for pair in zip(given.keys(), given.values()) if pair[0] in same]
        added = [pair for pair in wanted.items() if pair[0] not in same]
        return Entries(name + b"=" + value for name, value in [*kept, *added])


def read_process_start(words: "Sequence[str] | None") -> "ProcessStart":
    """Return what was given, from what the prelude's probe says; None: there was no prelude.

    The words' form is that of `start/probe.py`.
    """
    own = _own_entries()
    if words is None:
        return ProcessStart(own)
    mask = words[0] if words else "?"
    ignored = frozenset(
        number for number in IGNORED_BY_PYTHON if mask != "?" and int(mask, 16) >> (number - 1) & 1
    )
    text = "".join(words[1:])
    if text == "?":
        return ProcessStart(
            _unhidden(own),
            ignored,
            unknown="variables whose names are no identifiers, and whether SIGPIPE was ignored",
        )
    by_name = dict(entry.split(b"=", 1) for entry in own if b"=" in entry)
    entries = []
    for part in text.split(",")[1:]:
        if part.startswith("="):
            entries.append(bytes.fromhex(part[1:]))
        elif part.encode() in by_name:
            entries.append(part.encode() + b"=" + by_name[part.encode()])
    return ProcessStart(entries, ignored)


def _own_entries() -> "list[bytes]":
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123
            return file.read().split(b"\0")[:-1]
    except OSError:
        return [name + b"=" + value for name, value in os.environb.items()]


def _unhidden(entries: "Iterable[bytes]") -> "list[bytes]":
    """Undo what the prelude did to hide variables; LC_CTYPE is one of them."""
    return [
        entry[len(_KEPT) :] if entry.startswith(_KEPT) else entry
        for entry in entries
        if not entry.startswith(b"LC_CTYPE=")
    ]


_given = None


def at_start() -> "ProcessStart":
    """Return what this process was given."""
    global _given
    if _given is None:
        _given = read_process_start(None)
    return _given


def take_over(words: "Sequence[str]") -> None:
    """Believe the prelude; called once, before anything else."""
    global _given
    _given = read_process_start(words)
