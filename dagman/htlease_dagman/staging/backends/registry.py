"""Makes the back-end that a staging file names; another one is a class with the same methods."""

from __future__ import annotations

from htlease_dagman.staging.backends.command import (
    BRACES,
    CALL_SECONDS_DEFAULT,
    EXIT_NO_PERMISSION,
    EXIT_RETRYABLE,
    PLACEHOLDERS,
    SEARCHED,
    CommandBackend,
    CommandRules,
)
from htlease_dagman.staging.backends.local import RunBackend
from htlease_dagman.staging.staging_file import StagingFile, pattern, seconds, words
from htlease_dagman.staging.transfer import Backend

_TABLE = "service"
_BACKENDS = "run, command, condor, globus"
_KEYS = (
    *("backend", "submit", "poll", "cancel", "find", "check", "id", "words", "exits", "action"),
    *("submits_once", "call_seconds"),
)


def open_backend(file: StagingFile) -> Backend:
    """Return the back-end of a staging file; raises BadConfig."""
    name = file.service["backend"]
    if name == "command":
        return CommandBackend(command_rules(file))
    if name == "globus":
        from htlease_dagman.staging.backends.globus import globus_backend  # loads globus-sdk

        return globus_backend(file)
    if name == "run":
        return RunBackend(*_run_rules(file))
    if name == "condor":
        from htlease_dagman.staging.backends.condor import CondorBackend

        _check_keys(file, ("backend", "commands"))
        return CondorBackend(_meanings(file, "commands"))
    raise file.toml.wrong(_TABLE, "backend", f"{name!r} is not known; known are {_BACKENDS}")


def command_rules(file: StagingFile) -> CommandRules:
    """Read the rules of a command back-end; raises BadConfig."""
    toml, table = file.toml, file.service
    _check_keys(file, _KEYS)
    commands = {verb: _command(file, verb) for verb in PLACEHOLDERS if verb in table}
    for verb in ("submit", "poll"):
        if verb not in commands:
            raise toml.wrong(_TABLE, "", f"has no {verb} command")
    exits = {EXIT_RETRYABLE: "retryable", EXIT_NO_PERMISSION: "needs_action"}
    exits.update(_exits(file, SEARCHED))
    found = {
        meaning: pattern(toml, "service.words", meaning, text)
        for meaning, text in _meanings(file, "words").items()
    }
    unknown = set(found) - set(SEARCHED)
    if unknown:
        raise toml.wrong("service.words", unknown.pop(), f"is none of {', '.join(SEARCHED)}")
    if "done" not in found and "done" not in exits.values():
        raise toml.wrong(
            "service.words", "", 'nothing says that a task is done; write done = "SUCCEEDED"'
        )
    most_seconds = file.watching.ttl_seconds / 2
    call_seconds = seconds(
        toml,
        _TABLE,
        "call_seconds",
        table.get("call_seconds", min(CALL_SECONDS_DEFAULT, most_seconds)),
    )
    if call_seconds > most_seconds:
        raise toml.wrong(
            _TABLE,
            "call_seconds",
            f"{call_seconds:g} is more than half of ttl_seconds ({file.watching.ttl_seconds:g}):"
            " the lease could end during a call",
        )
    return CommandRules(
        **commands,
        id=pattern(toml, _TABLE, "id", table["id"], groups=1) if "id" in table else None,
        words=found,
        exits=exits,
        action=table.get("action"),
        submits_once=bool(table.get("submits_once", False)),
        call_seconds=call_seconds,
    )


def _meanings(file: StagingFile, name: str) -> dict[str, str]:
    table = file.service.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise file.toml.wrong(_TABLE, name, "is not a table of texts")
    return table


def _run_rules(file: StagingFile) -> tuple[tuple[str, ...], dict[int, str]]:
    _check_keys(file, ("backend", "run", "exits"))
    if file.watching.watcher != "job":
        raise file.toml.wrong(
            "watch", "watcher", 'a `run` command ends with its watcher; write watcher = "job"'
        )
    if "run" not in file.service:
        raise file.toml.wrong(_TABLE, "", 'has no run command; write run = ["cp", ...]')
    return _command(file, "run"), _exits(file, ("retryable", "failed"))


def _check_keys(file: StagingFile, known: tuple[str, ...]) -> None:
    for key in file.service:
        if key not in known:
            raise file.toml.wrong(_TABLE, key, f"is not known here; known are {', '.join(known)}")


def _command(file: StagingFile, verb: str) -> tuple[str, ...]:
    command = words(file.toml, _TABLE, verb, file.service[verb])
    names = {name for word in command for name in BRACES.findall(word)}
    unknown = names - set(PLACEHOLDERS[verb])
    if unknown:
        there = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS[verb])
        raise file.toml.wrong(_TABLE, verb, f"has {{{unknown.pop()}}}; {verb} knows {there}")
    for stage, transfer in file.transfers.items():
        if len(transfer.items) > 1 and names & {"source", "destination"}:
            raise file.toml.wrong(
                stage,
                "files",
                f"has {len(transfer.items)} entries, but the {verb} command takes one {{source}};"
                " use {from} and {to}, or read the list of `source TAB destination` lines from"
                " standard input",
            )
    return command


def _exits(file: StagingFile, known: tuple[str, ...]) -> dict[int, str]:
    exits = _meanings(file, "exits")
    for code, meaning in exits.items():
        if not code.isdigit() or meaning not in known:
            raise file.toml.wrong(
                "service.exits", code, f"is no exit code = one of {', '.join(known)}"
            )
    return {int(code): meaning for code, meaning in exits.items()}
