"""Two dry runs of a submit file, native and with the lines of htlease: what differs that must not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import classad2

from htlease_cli.submit.submit_lines import REFUSAL, Additions
from tests.condor_submit import Ad, DryRun

#: What a dry run says of the moment, and sizes of what is sent: the wrapper is larger than a script.
IGNORED = {"QDate", "EnteredCurrentStatus", "ExecutableSize", "ImageSize", "DiskUsage"} | {
    "TransferInputSizeMB"
}
#: Compared by what they say of ends of a job, since ours holds the user's.
ENDS = {"OnExitRemove": "True", "OnExitHold": "False"}
ENDS |= {"OnExitHoldReason": "undefined", "OnExitHoldSubCode": "undefined"}
#: Compared together with what the wrapper is told.
PROGRAM = {"Cmd", "TransferExecutable", "TransferInput"}
#: Ours where the user says nothing.
FREE = {"JobDescription"}
#: Universes that are refused by name: grid, java, parallel, vm.
REFUSED_UNIVERSES = {"9", "10", "11", "13"}
_UNUSED = re.compile(r"WARNING: the line '(MY\.HTLease|htlease|TransferInputFiles = )[^\n]*", re.I)


def differences(native: DryRun, ours: DryRun, additions: Additions) -> list[str]:
    """Return in what ours differs, a line each that begins with its kind."""
    if native.is_refused:
        if not ours.is_refused:
            return [f"taken: native says {native.said}"]
        # What htlease cannot take is sometimes found first.
        is_same = REFUSAL in ours.said or _last_words(native.said) in ours.said
        return [] if is_same else [f"words: {native.said}, {ours.said} here"]
    if ours.is_refused:
        return [] if _is_named(native, ours.said) else [f"refused: {ours.said}"]
    found = []
    if native.count != ours.count:
        found.append(f"count: {native.count} jobs, {ours.count} here")
    if _warnings(native.said) != _warnings(ours.said):
        found.append(f"warnings: {native.said!r}, {ours.said!r} here")
    for index, (its, mine) in enumerate(zip(native.ads, ours.ads, strict=False)):
        lines = _of_job(Job(its), Job(mine), additions)
        found += [f"{line} (job {index})" for line in lines]
    return found


def kinds(found: list[str]) -> set[str]:
    """Return the kinds of these differences."""
    return {line.partition(":")[0] for line in found}


def _is_named(native: DryRun, said: str) -> bool:
    """Tell whether htlease refuses what it has to, in words of its own."""
    if REFUSAL not in said:
        return False
    universes = {ad["JobUniverse"] for ad in native.ads}
    no_program = any(ad.get("Cmd", '""') == '""' for ad in native.ads)
    if " universe;" in said:
        return universes <= REFUSED_UNIVERSES
    return "+Cmd;" in said or (no_program and "no executable;" in said)


def _last_words(said: str) -> str:
    """Return the error alone: the number of a line counts ours too."""
    lines = [
        line for line in said.splitlines() if "ERROR" in line and "Failed to parse" not in line
    ]
    return re.sub(r"^.*[Ll]ine \d+[^:]*: *", "", lines[-1]) if lines else said


def _warnings(said: str) -> list[str]:
    return [" ".join(line.split()) for line in _UNUSED.sub("", said).splitlines() if line.strip()]


class Job:
    """One job's ad, as text and as HTCondor reads it."""

    def __init__(self, ad: Ad) -> None:
        self.ad = ad
        named = (f"{name} = {its}" for name, its in ad.items() if re.fullmatch(r"\w+", name))
        self._parsed = classad2.parseOne("\n".join(named))

    def value(self, name: str) -> Any:
        """Return what an attribute is worth; None where it is not there."""
        return self._parsed.eval(name) if name in self._parsed else None

    def text(self, name: str) -> str:
        """Return the text that an attribute is worth."""
        its = self.value(name)
        return "" if its is None else str(its)

    def files(self) -> list[str]:
        """Return the input files that are sent."""
        listed = self.text("TransferInput").strip('"').split(",")
        return [one.strip() for one in listed if one.strip()]

    def at_end(self, end: Mapping[str, Any], name: str, default: str) -> str:
        """Return what an attribute is worth when the job has ended so."""
        for attribute, its in end.items():
            self._parsed[attribute] = its
        if name not in self._parsed:
            return default
        worth = self._parsed.eval(name)
        return "undefined" if worth is classad2.Value.Undefined else str(worth)


def _of_job(native: Job, ours: Job, additions: Additions) -> Iterator[str]:
    its, mine = native.ad, ours.ad
    names = {name for name in {*its, *mine} if not name.startswith("HTLease")}
    names |= {name for name in its if name.startswith("HTLease")}
    for name in sorted(names - IGNORED - PROGRAM - set(ENDS)):
        if name in FREE and name not in its:
            continue
        if its.get(name) != mine.get(name):
            yield f"{name}: {its.get(name)}, {mine.get(name)} here"
    yield from _of_program(native, ours, additions)
    yield from _of_ends(native, ours)


def _of_program(native: Job, ours: Job, additions: Additions) -> Iterator[str]:
    """Compare what is started and sent."""
    if ours.text("Cmd") != str(additions.pyz) or ours.value("TransferExecutable") is not True:
        yield f"Cmd: {ours.ad.get('Cmd')} is not the wrapper, or is not sent"
    program, path = native.text("Cmd"), ours.text("HTLeaseProgramPath")
    is_sent = native.value("TransferExecutable") is not False
    expected = Path(program).name if is_sent else program
    if ours.text("HTLeaseProgram") != expected:
        yield f"program: {program}, {ours.text('HTLeaseProgram')} here"
    if is_sent and Path(path) != Path(program):
        yield f"program path: {program}, {path} here"
    sent = ours.files()
    if native.value("ShouldTransferFiles") not in ("NO", None):
        token = additions.token_path.replace("$(Process)", ours.ad.get("ProcId", "0"))
        tokens = [one for one in sent if Path(one).name == Path(token).name]
        # Before a second queue statement the lines are read again, and name again what they named;
        # of two files of a name the last one arrives.
        if tokens[-1:] != [token]:
            yield f"token: {token} in {sent}"
        if is_sent and path not in sent:
            yield f"not sent: {path} in {sent}"
        added = {path, *tokens} if is_sent else set(tokens)
        sent = [one for one in sent if one not in added]
    if sent != native.files():
        yield f"TransferInput: {native.files()}, {sent} here"


def _of_ends(native: Job, ours: Job) -> Iterator[str]:
    """Compare what becomes of a job at the ends that are the payload's own."""
    end: dict[str, Any] = {"ExitBySignal": False}
    for end["ExitCode"] in (0, 1, 3, 4, 5, 7, 85):
        for name, default in ENDS.items():
            its, mine = (job.at_end(end, name, default) for job in (native, ours))
            if its != mine:
                yield (
                    f"{name}: {its} after {end}, {mine} here: {native.ad.get(name)},"
                    f" {ours.ad.get(name)}"
                )
