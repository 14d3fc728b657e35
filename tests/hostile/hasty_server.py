"""`python -m tests.hostile.hasty_server`: the server, with a tenth of its patience."""

from __future__ import annotations

import sys

from htlease_server import http1
from htlease_server.__main__ import main

PART = 0.1
#: The longest that a connection may stay, answers of 10 MiB apart.
DEADLINE_MAX_SECONDS = PART * max(
    http1.REQUEST_SECONDS, http1.ANSWER_SECONDS, http1.KEEP_ALIVE_SECONDS, http1.UNREAD_SECONDS
)

if __name__ == "__main__":
    for name in ("REQUEST", "ANSWER", "KEEP_ALIVE", "UNREAD", "LINGER"):
        setattr(http1, f"{name}_SECONDS", getattr(http1, f"{name}_SECONDS") * PART)
    sys.exit(main())
