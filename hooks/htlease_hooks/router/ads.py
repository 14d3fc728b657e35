"""The ads that the Job Router gives its hooks, as lines that are passed on untouched. Pure.

An ad comes and goes as `Name = expression` lines of the old syntax. What is not ours is never
parsed and printed again, so nothing of it can change on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from htlease.condor.job_ad import (
    STAMP_ATTRIBUTE,
    Ad,
    Literal,
    is_stamped,
    key_of_submission,
    parse_ad,
)
from htlease_hooks.hook_reply import quoted

SEPARATOR = b"------"

KEY = "HTLeaseKey"
#: The key, where the source has it from the access point and not from its owner, whose token may
#: name another workflow. Copies of copies keep it.
STAMP = STAMP_ATTRIBUTE
#: `GlobalJobId` of the source, which the copy can see nowhere else.
SOURCE = "HTLeaseSource"
#: The epoch that the server gave the copy; a later copy has a higher one.
GENERATION = "HTLeaseRouteGeneration"
#: The IDs of the copy that the server knows.
RECORDED = "HTLeaseRecorded"
STATE = "HTLeaseState"
ATTEMPT = "HTLeaseAttempt"
FENCE = "HTLeaseFence"
#: What a copy must not inherit: it tells of its source, or of an earlier copy.
_OF_ANOTHER = tuple(
    name.lower().encode() for name in (SOURCE, GENERATION, RECORDED, STATE, ATTEMPT, FENCE)
)


@dataclass(frozen=True)
class Links:
    """The IDs by which a routed copy can be looked up."""

    #: `CLUSTER.PROC` of the source.
    source_job: str
    #: The copy's.
    job: str
    global_job_id: str
    #: Of a grid universe job, once the batch system has taken it; else empty.
    grid_job_id: str

    @property
    def mark(self) -> str:
        """Return what RECORDED holds when all of these are known."""
        return f"{self.global_job_id} {self.grid_job_id}".strip()


def split(text: bytes) -> tuple[bytes, bytes]:
    """Return what stands before and after the separator; all of it after, where there is none."""
    lines = text.split(b"\n")
    for number, line in enumerate(lines):
        if line.strip() == SEPARATOR:
            return b"\n".join(lines[:number]), b"\n".join(lines[number + 1 :])
    return b"", text


def read(text: bytes) -> Ad:
    """Return the literal attributes of an ad."""
    return Ad("stdin", parse_ad(text.decode(errors="replace")))


def is_opted_out(ad: Ad) -> bool:
    """Tell whether `+HTLease = false` says that this job has no lease."""
    return ad.attributes.get("htlease") is False


def key_of(ad: Ad) -> str | None:
    """Return the source's key: its own, else the one that its submission has."""
    own = ad.text(KEY)
    if own is not None:
        return own
    derived = key_of_submission(ad.text("GlobalJobId") or "")
    return None if derived is None else str(derived)


def stamp_of(source: Ad, key: str) -> str | None:
    """Return the key if nobody but the access point, or we, named it."""
    is_ours = source.text(KEY) is None and KEY.lower() not in source.attributes
    return key if is_ours or is_stamped(key, source) else None


def with_attributes(ad: bytes, attributes: Mapping[str, Literal]) -> bytes:
    """Return the ad's lines with these attributes, and without what a copy must not inherit."""
    named = {name.lower().encode() for name in attributes}
    kept = [
        line + b"\n"
        for line in ad.removesuffix(b"\n").split(b"\n")
        if (name := line.partition(b"=")[0].strip().lower()) not in _OF_ANOTHER
        and name not in named
    ]
    return b"".join(kept) + attribute_lines(attributes)


def attribute_lines(attributes: Mapping[str, Literal]) -> bytes:
    """Return attributes as lines of an ad."""
    return b"".join(
        f"{name} = {quoted(value) if isinstance(value, str) else value}\n".encode()
        for name, value in attributes.items()
    )


def links_of(routed: Ad) -> Links | None:
    """Return a copy's IDs, or None as long as it has none."""
    source, global_job_id = routed.text("RoutedFromJobId"), routed.text("GlobalJobId")
    cluster, proc = routed.count("ClusterId"), routed.count("ProcId")
    if source is None or global_job_id is None or cluster is None or proc is None:
        return None
    return Links(source, f"{cluster}.{proc}", global_job_id, routed.text("GridJobId") or "")


def job_of(ad: Ad) -> str | None:
    """Return `CLUSTER.PROC` of an ad."""
    cluster, proc = ad.count("ClusterId"), ad.count("ProcId")
    return None if cluster is None or proc is None else f"{cluster}.{proc}"
