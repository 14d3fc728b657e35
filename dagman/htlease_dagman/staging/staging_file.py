"""The staging file of a workflow: places, transfers, the service that makes them, and the jobs.

Read on the access point by `htlease stage` and by every watcher. Complaints are BadConfig with file
and line. It holds no secret: a credential is named by its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig, InvalidField
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import TTL_DEFAULT_SECONDS, check_ttl
from htlease_dagman.staging.toml_lines import TomlFile
from htlease_dagman.staging.transfer import Item, Place, Transfer

STAGE_IN, STAGE_OUT = STAGES = ("stage-in", "stage-out")
#: job: one long watcher, a job in local universe. chain: short ones, each a retry of the node.
#: defer: a PRE script that DAGMan runs again and again; no job and no slot at all.
WATCHERS = ("job", "chain", "defer")

_TOP_KEYS = ("workflow", "watch", "service", "places", *STAGES, "compute", "clean-up", "notice")
_WATCH_KEYS: dict[str, Any] = {
    "watcher": "job",
    "requirements": None,
    "accounting_group": None,
    "poll_seconds": 30,
    "short_seconds": 300,
    "ttl_seconds": TTL_DEFAULT_SECONDS,
    "tasks_max": 3,
}
_POLL_MAX_SECONDS = 86400.0


@dataclass(frozen=True)
class Notice:
    """How somebody is told that a transfer waits for a person."""

    #: Gets the text on standard input; `{subject}` in a word is replaced.
    command: tuple[str, ...] = ()
    #: The text is appended here.
    file: Path | None = None


@dataclass(frozen=True)
class Watching:
    """How transfers are watched."""

    watcher: str
    poll_seconds: float
    #: How long a short watcher of a chain lives.
    short_seconds: float
    ttl_seconds: float
    #: Tasks for one transfer, the first included, while their failures look temporary.
    tasks_max: int
    #: Where watchers run, as in a submit file; None: in local universe, on the access point.
    requirements: str | None = None
    #: To whom HTCondor accounts them.
    accounting_group: str | None = None


@dataclass(frozen=True)
class StagingFile:
    """A staging file that can be used."""

    toml: TomlFile
    workflow: str | None
    watching: Watching
    service: Mapping[str, Any]
    transfers: Mapping[str, Transfer]
    #: Nobody waits for the stage-out: its node is done once the service has it.
    is_left_alone: bool
    compute: Path
    clean_up: Path | None
    notice: Notice

    @property
    def path(self) -> Path:
        return self.toml.path

    def transfer(self, node: str) -> Transfer:
        """Return the transfer of a node; raises BadConfig."""
        if node not in self.transfers:
            has = ", ".join(self.transfers)
            raise BadConfig(f"{self.path}: there is no transfer {node}; it has {has}")
        return self.transfers[node]


def read_staging_file(path: Path, *, with_jobs: bool = True) -> StagingFile:
    """Read and check a staging file; raises BadConfig.

    Without its jobs where their submit files need not be, as on an execution point.
    """
    toml = TomlFile(path)
    document = toml.document
    _check_keys(toml, "", document, _TOP_KEYS)
    workflow = document.get("workflow")
    if workflow is not None:
        try:
            SubjobKey(workflow, "stage-in")
        except InvalidField as error:
            raise toml.wrong("", "workflow", error.problem) from None
    places = _places(toml)
    transfers = {stage: _transfer(toml, stage, places) for stage in STAGES if stage in document}
    if not transfers:
        raise BadConfig(f"{path}:1: neither [stage-in] nor [stage-out] is there: nothing to do")
    compute = _submit_file(toml, "compute", with_jobs)
    if compute is None:
        raise BadConfig(f'{path}:1: [compute] is missing; name its submit file: submit = "my.sub"')
    service = _table(toml, "service")
    if "backend" not in service:
        raise toml.wrong("service", "", 'has no backend; write backend = "command" or "globus"')
    return StagingFile(
        toml,
        workflow,
        _watching(toml),
        service,
        transfers,
        _is_left_alone(toml),
        compute,
        _submit_file(toml, "clean-up", with_jobs),
        _notice(toml),
    )


def words(toml: TomlFile, table: str, key: str, value: Any) -> tuple[str, ...]:
    """Return a list of words from the file; raises BadConfig."""
    is_list = isinstance(value, list) and all(isinstance(word, str) for word in value)
    if not is_list or not value or not value[0]:
        raise toml.wrong(table, key, 'is no list of words such as ["rclone", "copy"]')
    return tuple(value)


def seconds(
    toml: TomlFile, table: str, key: str, value: Any, most: float = _POLL_MAX_SECONDS
) -> float:
    """Return a number of seconds from the file; raises BadConfig."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise toml.wrong(table, key, f"{value!r} is no number of seconds up to {most:.12g}")
    return float(value)


def pattern(toml: TomlFile, table: str, key: str, value: Any, groups: int = 0) -> re.Pattern[str]:
    """Return a regular expression from the file; raises BadConfig."""
    try:
        found = re.compile(value, re.MULTILINE)
    except (re.error, TypeError) as error:
        raise toml.wrong(table, key, f"is no regular expression: {error}") from None
    if found.groups < groups:
        raise toml.wrong(table, key, "has no group (...) around the part that is wanted")
    return found


def _check_keys(
    toml: TomlFile, table: str, values: Mapping[str, Any], known: tuple[str, ...]
) -> None:
    for key in values:
        if key not in known:
            is_table = isinstance(values[key], dict)
            where = (f"{table}.{key}".lstrip("."), "") if is_table else (table, key)
            raise toml.wrong(*where, f"is not known here; known are {', '.join(known)}")


def _table(toml: TomlFile, name: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    table = toml.document.get(name, {})
    if not isinstance(table, dict):
        raise toml.wrong("", name, f"is not a table; write [{name}]")
    if known:
        _check_keys(toml, name, table, known)
    return table


def _watching(toml: TomlFile) -> Watching:
    table = {**_WATCH_KEYS, **_table(toml, "watch", tuple(_WATCH_KEYS))}
    if table["watcher"] not in WATCHERS:
        raise toml.wrong("watch", "watcher", f"{table['watcher']!r} is none of {WATCHERS}")
    tasks_max = table["tasks_max"]
    if isinstance(tasks_max, bool) or not isinstance(tasks_max, int) or tasks_max < 1:
        raise toml.wrong("watch", "tasks_max", f"{tasks_max!r} is no number of tasks")
    try:
        ttl_seconds = check_ttl(table["ttl_seconds"])
    except InvalidField as error:
        raise toml.wrong("watch", "ttl_seconds", error.problem) from None
    return Watching(
        table["watcher"],
        seconds(toml, "watch", "poll_seconds", table["poll_seconds"]),
        seconds(toml, "watch", "short_seconds", table["short_seconds"]),
        ttl_seconds,
        tasks_max,
        _submit_value(toml, table, "requirements"),
        _submit_value(toml, table, "accounting_group"),
    )


def _submit_value(toml: TomlFile, table: Mapping[str, Any], key: str) -> str | None:
    value = table[key]
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\n" in value:
        raise toml.wrong("watch", key, f"{value!r} is no single line of a submit file")
    if table["watcher"] == "defer":
        raise toml.wrong("watch", key, "is of no use: a deferred watcher is no job")
    return value.strip()


def _places(toml: TomlFile) -> dict[str, Place]:
    places = {}
    for name, table in _table(toml, "places").items():
        where = f"places.{name}"
        if not isinstance(table, dict):
            raise toml.wrong("places", name, 'is not a table; write { path = "/data" }')
        _check_keys(toml, where, table, ("path", "collection"))
        for key, value in table.items():
            if not isinstance(value, str):
                raise toml.wrong(where, key, f"{value!r} is no text")
        if not table.get("path"):
            raise toml.wrong(where, "", "has no path")
        places[name] = Place(name, table["path"], table.get("collection"))
    return places


def _transfer(toml: TomlFile, stage: str, places: Mapping[str, Place]) -> Transfer:
    known = ("from", "to", "files", *(("wait",) if stage == STAGE_OUT else ()))
    table = _table(toml, stage, known)
    ends = []
    for key in ("from", "to"):
        name = str(table.get(key))
        if name not in places:
            there = ", ".join(places) or "none"
            raise toml.wrong(stage, key, f"{name!r} is no place; the places are {there}")
        ends.append(places[name])
    files = table.get("files")
    if not isinstance(files, list) or not files:
        raise toml.wrong(stage, "files", 'name at least one file: files = ["input.dat", "dir/"]')
    return Transfer(ends[0], ends[1], tuple(_item(toml, stage, value) for value in files))


def _is_left_alone(toml: TomlFile) -> bool:
    wait = _table(toml, STAGE_OUT).get("wait", True)
    if not isinstance(wait, bool):
        raise toml.wrong(STAGE_OUT, "wait", f"{wait!r} is neither true nor false")
    return not wait


def _item(toml: TomlFile, stage: str, value: Any) -> Item:
    if isinstance(value, str):
        value = {"from": value, "to": value}
    is_pair = isinstance(value, dict) and set(value) == {"from", "to"}
    if not is_pair or not all(isinstance(name, str) and name for name in value.values()):
        raise toml.wrong(
            stage, "files", f'{value!r} is neither a name nor {{ from = "a", to = "b" }}'
        )
    if any(mark in name for name in value.values() for mark in "\t\n\0"):
        raise toml.wrong(
            stage, "files", f"{value!r} has a character that no list of files can hold"
        )
    if value["from"].endswith("/") != value["to"].endswith("/"):
        raise toml.wrong(stage, "files", f"{value!r}: a directory ends with / on both sides")
    return Item(value["from"], value["to"])


def _submit_file(toml: TomlFile, name: str, has_to_exist: bool) -> Path | None:
    table = _table(toml, name, ("submit",))
    if not table and name not in toml.document:
        return None
    submit = table.get("submit")
    if not isinstance(submit, str) or not submit:
        raise toml.wrong(name, "submit", 'names no submit file; write submit = "my.sub"')
    path = toml.path.parent / submit
    if has_to_exist and not path.is_file():
        raise toml.wrong(name, "submit", f"there is no file {path}")
    return path


def _notice(toml: TomlFile) -> Notice:
    table = _table(toml, "notice", ("command", "file"))
    file = table.get("file")
    if file is not None and not isinstance(file, str):
        raise toml.wrong("notice", "file", f"{file!r} is no path")
    command = words(toml, "notice", "command", table["command"]) if "command" in table else ()
    return Notice(command, toml.path.parent / file if file else None)
