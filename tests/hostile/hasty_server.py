"""`python -m tests.hostile.hasty_server`: the server, with a tenth of its patience."""

from __future__ import annotations

import sys

from htlease_server.__main__ import main
from htlease_server.http import server

PART = 0.1
#: The longest that a connection may stay, answers of 10 MiB apart.
DEADLINE_MAX_SECONDS = PART * max(
    server.REQUEST_SECONDS, server.ANSWER_SECONDS, server.KEEP_ALIVE_SECONDS, server.UNREAD_SECONDS
)

if __name__ == "__main__":
    for name in ("REQUEST", "ANSWER", "KEEP_ALIVE", "UNREAD", "LINGER"):
        setattr(server, f"{name}_SECONDS", getattr(server, f"{name}_SECONDS") * PART)
    sys.exit(main())
