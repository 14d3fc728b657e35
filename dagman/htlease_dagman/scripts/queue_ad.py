"""What the queue or the history says of jobs, by HTCondor's own commands on the access point."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: DAGMan waits for its scripts, and a schedd may be busy.
ASK_SECONDS = 10.0
_LINE = re.compile(r"^(\w+) = (.*)$", re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)")


def read_ad(program: str, job: str, names: Sequence[str]) -> dict[str, str | int]:
    """Return the numbers and texts that `condor_q` or `condor_history` has of a job.

    Nothing is returned for a job that is not there, and when the command cannot be asked.
    """
    ads = read_ads(program, [job, "-limit", "1"], names)
    return ads[0] if ads else {}


def read_ads(
    program: str, which: Sequence[str], names: Sequence[str]
) -> list[dict[str, str | int]]:
    """Return the same of all jobs that the arguments `which` mean."""
    path = shutil.which(program)
    if path is None:
        return []
    ask = [path, *which, "-long", "-attributes", ",".join(names)]
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ads_from(asked.stdout)


def queue_birthdate() -> int | None:
    """Return the JobQueueBirthdate of this machine's schedd, as it says itself; None if unknown."""
    path = shutil.which("condor_config_val")
    if path is None:
        return None
    ask = [path, "SCHEDD_ADDRESS_FILE"]
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=ASK_SECONDS)
        address = Path(asked.stdout.strip()).read_text().partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired):
        return None
    # A schedd answers queries for its own ad like a collector.
    ads = read_ads("condor_status", ["-pool", address, "-schedd"], ("JobQueueBirthdate",))
    return number(ads[0], "JobQueueBirthdate") if len(ads) == 1 else None


def ads_from(text: str) -> list[dict[str, str | int]]:
    """Read ads as the commands print them, with an empty line after each."""
    return [ad for part in text.split("\n\n") if (ad := ad_from(part))]


def ad_from(text: str) -> dict[str, str | int]:
    """Read an ad as the commands print it; what is no number, text or truth value is left out."""
    found: dict[str, str | int] = {}
    for name, value in _LINE.findall(text):
        if re.fullmatch(r"-?\d+", value):
            found[name] = int(value)
        elif value in ("true", "false"):
            found[name] = value == "true"
        elif len(value) >= 2 and value[0] == value[-1] == '"':
            found[name] = _ESCAPED.sub(r"\1", value[1:-1])
    return found


def number(ad: Mapping[str, str | int], name: str) -> int | None:
    """Return a number of an ad, or None."""
    value = ad.get(name)
    return value if isinstance(value, int) else None
