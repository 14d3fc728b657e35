"""What a job's ads say: literal attributes of `.job.ad` and `.machine.ad`, without bindings."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from htlease.condor.private_files import read_plain
from htlease.rules.attempt import (
    NAME_LENGTH_MAX,
    Evidence,
    Place,
    ReadFrom,
    SubjobKey,
    start_number,
)

Literal = Union[str, int, float, bool]

#: In a copy that the Job Router made: the key that its source was stamped with, if it was.
STAMP_ATTRIBUTE = "HTLeaseStamp"
#: An ad has some hundreds of attributes; a megabyte of environment has been seen.
_AD_MAX_BYTES = 16 << 20
_NUMBER_MAX_CHARS = 40
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._~@:=+,-]")
_PARALLEL = 11
_WAITS = "waits for the end of an earlier lease"
_SCHEDULER = 7
_LOCAL = 12
_ON_EXIT = re.compile(
    r"^\s*(OnExitRemove|OnExitHold)\s*=\s*(.*\S)\s*$", re.MULTILINE | re.IGNORECASE
)
#: What HTCondor does where the ad does not say, and what older ones say then.
_AS_USUAL = {"onexitremove": "true", "onexithold": "false"}
_EVICTION_SIGNALS = ("KillSig", "RemoveKillSig", "HoldKillSig")


@dataclass(frozen=True)
class Ad:
    """The literal attributes of an ad; attributes that are expressions are left out."""

    #: Where it was read, for messages.
    path: str
    #: By lower-case name: ClassAd names have no case.
    attributes: Mapping[str, Literal]

    def text(self, name: str) -> str | None:
        """Return a string attribute, or None."""
        value = self.attributes.get(name.lower())
        return value if isinstance(value, str) else None

    def count(self, name: str) -> int | None:
        """Return an attribute that is a whole number and not negative, or None."""
        value = self.attributes.get(name.lower())
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return value if is_count else None  # type: ignore[return-value]


def read_ad(path: Path) -> Ad | None:
    """Read an ad; None when the file cannot be read."""
    try:
        text = read_plain(path, _AD_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    return Ad(str(path), parse_ad(text))


def parse_ad(text: str) -> dict[str, Literal]:
    """Read the `Name = literal` lines of an ad; anything else is skipped."""
    attributes: dict[str, Literal] = {}
    for line in text.split("\n"):
        name, _, written = line.partition("=")
        name, value = name.strip(), _literal(written.strip())
        if value is not None and _NAME.fullmatch(name):
            attributes[name.lower()] = value
    return attributes


def _literal(text: str) -> Literal | None:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        body = text[1:-1]
        if set(_ESCAPED.sub("", body)) & {'"', "\\"}:
            return None  # an expression that begins and ends with a string
        return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), body)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if len(text) > _NUMBER_MAX_CHARS:
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return None


def evidence_of(ad: Ad | None, sandbox_seq: int) -> tuple[Evidence, tuple[str, ...]]:
    """Return what orders this start among others, and a sentence for each part that is absent.

    The local universe's `.job.ad` has the same offset. In the scheduler universe there is no shadow
    whose starts could be counted. Source: measured on 23.9.6 and 25.14.1.
    """
    if ad is None:
        return Evidence(sandbox_seq=sandbox_seq), (
            "there is no job ad ($_CONDOR_JOB_AD or .job.ad): this start cannot be ordered and "
            + _WAITS,
        )
    starts = ad.count("NumJobStarts")
    evidence = Evidence(
        job_starts=None if starts is None else start_number(starts, ReadFrom.JOB_AD),
        shadow_starts=ad.count("NumShadowStarts"),
        shadow_birthdate=ad.count("ShadowBday"),
        sandbox_seq=sandbox_seq,
    )
    missing = [
        name
        for name, value in (
            ("NumJobStarts", evidence.job_starts),
            ("NumShadowStarts", evidence.shadow_starts),
        )
        if value is None
    ]
    if ad.count("JobUniverse") == _SCHEDULER and evidence.job_starts is not None:
        missing = []
    if len(missing) == 2:
        follows = f"this start cannot be ordered and {_WAITS}"
    else:
        follows = "this start is ordered by the other counters alone"
    return evidence, tuple(f"{ad.path} has no {name}: {follows}" for name in missing)


def place_of(job_ad: Ad | None, machine_ad: Ad | None) -> Place:
    """Return where this start runs, as far as the ads say; nothing where that proves nothing.

    A container of docker's is no child of the starter and may outlive it, and what runs on the
    access point itself (local universe) has no slot.
    `PublicClaimId` is `<startd address>#<startd start time>#<claim number>#...`; a later claim on
    the same startd differs only in the number. Source: measured on 25.14.1.
    """
    if job_ad is not None and (is_in_docker(job_ad) or job_ad.count("JobUniverse") == _LOCAL):
        return Place()
    claim = job_ad.text("PublicClaimId") if job_ad else None
    startd = "#".join(claim.split("#")[:2]) if claim and claim.count("#") >= 2 else None
    return Place(
        machine=machine_ad.text("Machine") if machine_ad else None,
        slot=machine_ad.text("Name") if machine_ad else None,
        startd=startd,
    )


def is_in_docker(ad: Ad) -> bool:
    """Tell whether docker may run the job, as it does a container universe's remote image."""
    is_file = any(ad.attributes.get(name) is True for name in ("wantsif", "wantsandboximage"))
    is_container = ad.attributes.get("wantcontainer") is True
    return ad.attributes.get("wantdocker") is True or (is_container and not is_file)


def is_stamped(key: str, ad: Ad) -> bool:
    """Tell whether a key is the one that the access point gives to a job that names none."""
    if key == ad.text(STAMP_ATTRIBUTE):
        return True
    cluster, submitted, proc = (ad.count(name) for name in ("ClusterId", "QDate", "ProcId"))
    return key.endswith(f"-{cluster}-{submitted}/{proc}")


def key_of_submission(global_job_id: str) -> SubjobKey | None:
    """Return the key of a job that names none: `<schedd>-<cluster>-<qdate>/<proc>`."""
    schedd, _, rest = global_job_id.rpartition("#")[0].rpartition("#")
    cluster, _, proc = rest.partition(".")
    submitted = global_job_id.rpartition("#")[2]
    if not (schedd and cluster.isdigit() and proc.isdigit() and submitted.isdigit()):
        return None
    tail = f"-{cluster}-{submitted}"
    workflow = _NOT_IN_NAMES.sub("-", schedd)[: NAME_LENGTH_MAX - len(tail)] + tail
    return SubjobKey(workflow, proc)


def checkpoint_exit_code(ad: Ad | None) -> int | None:
    """Return the exit code that means `checkpointed, start me again here`, if the job has one.

    `checkpoint_exit_code` of a submit file is `SuccessCheckpointExitCode` in the ad. Source:
    measured on 23.9.6 and 25.14.1.
    """
    if ad is None:
        return None
    for name in ("SuccessCheckpointExitCode", "CheckpointExitCode"):
        code = ad.count(name)
        if code is not None:
            return code
    return None


def node_of(ad: Ad | None) -> int:
    """Return which node of a parallel universe job this is; 0 for any other job.

    Source: `ParallelProc::StartJob`, which needs `Node`; measured on 23.9.6.
    """
    is_parallel = ad is not None and ad.count("JobUniverse") == _PARALLEL
    return (ad.count("Node") or 0) if ad is not None and is_parallel else 0


def leaves_nothing(ad: Ad | None) -> bool:
    """Tell whether a job that exits 0 is done with that, for HTCondor too.

    No file is brought back, and no policy of the job's own runs it again or holds it: retries and
    `on_exit_hold` are expressions in its ad, which are looked for in the file.
    """
    if ad is None:
        return False
    try:
        policy = _ON_EXIT.findall(Path(ad.path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False
    is_plain = all(value.lower() == _AS_USUAL[name.lower()] for name, value in policy)
    is_in_place = ad.count("JobUniverse") == _LOCAL or ad.text("ShouldTransferFiles") == "NO"
    return is_in_place and is_plain


def eviction_signals(ad: Ad | None) -> frozenset[int]:
    """Return the signals by which HTCondor asks this job to end: SIGTERM and what its ad names."""
    numbers = {int(signal.SIGTERM)}
    for name in _EVICTION_SIGNALS if ad else ():
        assert ad is not None
        text = (ad.text(name) or "").upper()
        number = ad.count(name) or getattr(signal, text if text.startswith("SIG") else "", None)
        if number in signal.valid_signals():
            numbers.add(int(number))
    return frozenset(numbers)
