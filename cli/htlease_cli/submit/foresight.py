"""Which subjobs a submit file will make, where HTCondor's own parser can tell without doing harm.

Nothing depends on it: what is not foreseen, or foreseen wrongly, is put right after submission. It
only lets each job have a token of its own from the start, and refuses what is complete before
anything is queued.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from htlease.condor import schedd
from htlease.condor.submit_description import Commands, Description
from htlease.errors import BadConfig, InvalidField
from htlease.rules.attempt import SubjobKey

#: Commands would be run, or it is not one plain queue statement.
_DOUBTFUL = re.compile(
    r"\|\s*$|^\s*(?:@?include|use|if|elif)\b|^\s*queue\b.*[\[$]", re.IGNORECASE | re.MULTILINE
)
_QUEUE = re.compile(r"^\s*queue\b", re.IGNORECASE | re.MULTILINE)
_OWN_WORKFLOW = re.compile(
    r"^\s*(?:\+|MY\.)?HTLeaseKey\s*=\s*\"?([^\"/$\s]+)/", re.IGNORECASE | re.MULTILINE
)
#: With any of these the schedd makes the jobs one after another (late materialization).
_FACTORY = ("max_materialize", "JobMaterializeLimit", "max_idle", "materialize_max_idle")
_FACTORY_ATTRIBUTE = "JobMaterializeMaxIdle"


#: A file's own lines, by a name without macros: neither what a command prints nor a copy of it.
_INCLUDE = re.compile(
    r"^[ \t]*include[ \t]*:[ \t]*([^\s$|](?:[^\n$|]*[^\s$|])?)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)


def with_includes(text: str, read: Callable[[str], str | None]) -> str:
    """Return a submit file with the lines of the files that it includes in their place.

    `read` gives a file's lines, or None where it cannot be read. What such files include in turn
    stays as it is.
    """

    def lines_of(include: re.Match[str]) -> str:
        return read(include[1]) or include[0]

    return _INCLUDE.sub(lines_of, text)


def own_workflow(text: str) -> str | None:
    """Return the workflow that the file's own HTLeaseKey names, if it does so literally."""
    found = _OWN_WORKFLOW.search(text)
    return found[1] if found else None


def foreseen_keys(
    text: str, overrides: Mapping[str, str], workflow: str
) -> tuple[SubjobKey, ...] | None:
    """Return the keys of the jobs in the order of `$(Process)`; None where that is not certain."""
    if _DOUBTFUL.search(text) or len(_QUEUE.findall(text)) != 1:
        return None
    try:
        description = schedd.read_description(text, overrides)
        return _keys(description, workflow)
    except (InvalidField, BadConfig):
        return None  # condor_submit says what is wrong, if anything is


def _keys(description: Description, workflow: str) -> tuple[SubjobKey, ...] | None:
    commands = description.commands
    if any(name in commands for name in (*_FACTORY, _FACTORY_ATTRIBUTE)):
        return None
    own = "MY.HTLeaseKey" if "MY.HTLeaseKey" in commands else "HTLeaseKey"
    if own not in commands:
        return tuple(SubjobKey(workflow, str(number)) for number in range(description.job_count))
    expanded = [text.strip().strip('"') for text in schedd.expand_each(description, own)]
    return tuple(
        SubjobKey.parse(text if "/" in text else f"{workflow}/{text}") for text in expanded
    )


def as_commands(overrides: tuple[str, ...]) -> Commands:
    """Return `NAME=VALUE` texts as commands; `+Name` is an attribute."""
    given = Commands({})
    for override in overrides:
        name, _, value = override.partition("=")
        given[re.sub(r"^\+", "MY.", name.strip())] = value.strip()
    return given
