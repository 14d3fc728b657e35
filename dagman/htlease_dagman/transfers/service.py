"""Makes the back-end that a staging file names; a third one is a class with the same methods."""

from __future__ import annotations

from htlease_dagman.transfers.command import (
    BRACES,
    CALL_SECONDS_DEFAULT,
    EXIT_NO_PERMISSION,
    EXIT_RETRYABLE,
    PLACEHOLDERS,
    SEARCHED,
    CommandBackend,
    CommandRules,
)
from htlease_dagman.transfers.staging_file import StagingFile, pattern, seconds, words
from htlease_dagman.transfers.task import Backend

_TABLE = "service"
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
        from htlease_dagman.transfers.globus import globus_backend  # loads globus-sdk

        return globus_backend(file)
    raise file.toml.wrong(_TABLE, "backend", f"{name!r} is not known; known are command and globus")


def command_rules(file: StagingFile) -> CommandRules:
    """Read the rules of a command back-end; raises BadConfig."""
    toml, table = file.toml, file.service
    for key in table:
        if key not in _KEYS:
            raise toml.wrong(_TABLE, key, f"is not known here; known are {', '.join(_KEYS)}")
    commands = {}
    for verb, known in PLACEHOLDERS.items():
        if verb not in table:
            if verb in ("submit", "poll"):
                raise toml.wrong(_TABLE, "", f"has no {verb} command")
            continue
        commands[verb] = words(toml, _TABLE, verb, table[verb])
        for word in commands[verb]:
            for name in BRACES.findall(word):
                if name not in known:
                    there = ", ".join(f"{{{one}}}" for one in known)
                    raise toml.wrong(_TABLE, verb, f"has {{{name}}}; {verb} knows {there}")
    _check_single_items(file, commands["submit"])
    exits = {EXIT_RETRYABLE: "retryable", EXIT_NO_PERMISSION: "needs_action"}
    for code, meaning in _meanings(file, "exits").items():
        if not code.isdigit() or meaning not in SEARCHED:
            raise toml.wrong("service.exits", code, f"is no exit code = one of {SEARCHED}")
        exits[int(code)] = meaning
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


def _check_single_items(file: StagingFile, submit: tuple[str, ...]) -> None:
    used = {name for word in submit for name in BRACES.findall(word)}
    for stage, transfer in file.transfers.items():
        if len(transfer.items) > 1 and used & {"source", "destination"}:
            raise file.toml.wrong(
                stage,
                "files",
                f"has {len(transfer.items)} entries, but the submit command takes one {{source}};"
                " use {from} and {to}, or read the list of `source TAB destination` lines from"
                " standard input",
            )
