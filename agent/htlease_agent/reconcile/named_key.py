"""The key that a job's ad in the queue names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from htlease.condor.schedd import Plain

#: In either form of an environment; a key has neither blanks nor quotes.
_KEY_IN_ENVIRONMENT = re.compile(r"(?:^|[\s';|])HTLEASE_KEY=([^\s';|]+)")


def key_named(ad: Mapping[str, Plain]) -> str:
    """Return the key that a job names in its environment, else that of its ad; pure."""
    for name in ("Environment", "Env"):
        found = _KEY_IN_ENVIRONMENT.search(str(ad.get(name, "")))
        if found is not None:
            return found[1]
    return str(ad["HTLeaseKey"])
