"""Plan files: the phases of a job and what to run in each, in TOML or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htlease.config.toml import toml_from
from htlease.errors import BadConfig, InvalidField
from htlease.json_text import json_from
from htlease.rules.plan import PhaseSpec, Plan, PlanFile, check_ttl, seconds_from

_PLAN_KEYS = ("ttl_seconds", "takeover", "wall_time_seconds", "on_wall_time", "phase")
_PHASE_KEYS = ("name", "run", "restart", "exclusive", "needs", "wall_time_seconds")
_PLAN_MAX_BYTES = 1 << 20
#: What a phase without `restart` does.
RESTART_DEFAULT = "redo"


def read_plan_file(path: Path, *, is_sent: bool = False) -> PlanFile:
    """Read a plan; raises BadConfig naming file, phase and key.

    `is_sent`: it should have come to the job with its input files.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_PLAN_MAX_BYTES + 1)
    except OSError as error:
        advice = "is it in transfer_input_files?" if is_sent else "name a file that can be read"
        raise BadConfig(f"plan {path}: {error.strerror}; {advice}") from None
    if len(data) > _PLAN_MAX_BYTES:
        raise BadConfig(f"plan {path}: has more than {_PLAN_MAX_BYTES} bytes, the limit")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadConfig(f"plan {path}: is not UTF-8 text: {error}") from None
    try:
        return plan_from_text(text)
    except InvalidField as error:
        raise BadConfig(f"plan {path}: {error}") from None


def plan_from_text(text: str) -> PlanFile:
    """Read TOML, or JSON if it begins with a brace; raises InvalidField."""
    document = _json(text) if text.lstrip()[:1] == "{" else toml_from(text)
    _check_keys("", document, _PLAN_KEYS)
    tables = document.get("phase")
    if not isinstance(tables, list) or not tables:
        raise InvalidField("phase", "there is none; write one [[phase]] table for each step")
    phases = [_phase(number, table) for number, table in enumerate(tables, 1)]
    commands = {spec.name: command for spec, command in phases if command is not None}
    without = [spec.name for spec, command in phases if command is None]
    if commands and without:
        raise InvalidField(
            f"phase {without[0]}",
            "has no run although others have; either each phase has run, or none has and the "
            "payload enters its phases itself",
        )
    ttl_seconds = document.get("ttl_seconds")
    return PlanFile(
        Plan(
            tuple(spec for spec, _ in phases),
            document.get("takeover", "wait"),
            on_wall_time=document.get("on_wall_time"),
        ),
        commands,
        None if ttl_seconds is None else check_ttl(ttl_seconds),
        _wall_time("", document),
        _phase_wall_times(tables, phases),
    )


def _phase_wall_times(
    tables: list[dict[str, Any]], phases: list[tuple[PhaseSpec, tuple[str, ...] | None]]
) -> dict[str, float]:
    found = {}
    for table, (spec, command) in zip(tables, phases):
        seconds = _wall_time(f"phase {spec.name}: ", table)
        if seconds is None:
            continue
        if command is None:
            raise InvalidField(
                f"phase {spec.name}: wall_time_seconds",
                "stands in a phase without run, whose payload nobody else can end; give the job "
                "one, above the phases",
            )
        found[spec.name] = seconds
    return found


def _wall_time(where: str, table: Mapping[str, Any]) -> float | None:
    value = table.get("wall_time_seconds")
    if value is None:
        return None
    seconds = None if isinstance(value, (bool, str)) else seconds_from(value)
    if not seconds:
        raise InvalidField(f"{where}wall_time_seconds", f"{value!r} is no number of seconds")
    return seconds


def _phase(number: int, table: Any) -> tuple[PhaseSpec, tuple[str, ...] | None]:
    where = f"phase {number}"
    if not isinstance(table, dict):
        raise InvalidField(where, "is not a table; write [[phase]] with two pairs of brackets")
    name = table.get("name")
    if not isinstance(name, str):
        raise InvalidField(where, 'has no name; write name = "compute"')
    where = f"phase {name}"
    _check_keys(f"{where}: ", table, _PHASE_KEYS)
    exclusive = table.get("exclusive", False)
    if not isinstance(exclusive, bool):
        raise InvalidField(f"{where}: exclusive", f"{exclusive!r} is neither true nor false")
    needs = _texts(f"{where}: needs", table.get("needs", []), '["hpss", "pftp"]')
    spec = PhaseSpec(name, table.get("restart", RESTART_DEFAULT), exclusive, needs)
    if "run" not in table:
        return spec, None
    command = _texts(f"{where}: run", table["run"], '["./simulate", "--fast"]')
    if not command or not command[0]:
        raise InvalidField(f"{where}: run", 'names no program; write run = ["./simulate"]')
    return spec, command


def _texts(where: str, value: Any, example: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise InvalidField(where, f"{value!r} is not a list of strings such as {example}")
    if any("\0" in part for part in value):
        raise InvalidField(where, "contains a NUL character")
    return tuple(value)


def _check_keys(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InvalidField(
            f"{where}{unknown[0]}", f"is not a key here; the keys are {', '.join(known)}"
        )


def _json(text: str) -> dict[str, Any]:
    try:
        document = json_from(text)
    except ValueError as error:
        raise InvalidField("JSON", str(error)) from None
    assert isinstance(document, dict)
    return document
