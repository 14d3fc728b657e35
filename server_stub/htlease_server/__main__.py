"""`python -m htlease_server`: the server without the `htlease` command around it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server import logs
from htlease_server.auth.rate_limit import RATE_DEFAULT_PER_SECOND
from htlease_server.serve import LISTEN_DEFAULT, ServeOptions, serve
from htlease_server.store.base import StoreFailed

_EXIT_CONFIG = 78


def main() -> int:
    """Serve with the options in argv; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m htlease_server", description=__doc__)
    parser.add_argument("--listen", default=LISTEN_DEFAULT, metavar="HOST:PORT")
    parser.add_argument(
        "--store",
        metavar="sqlite:///PATH|postgresql://…",
        help="sqlite:///x is relative, sqlite:////srv/x absolute",
    )
    parser.add_argument("--admin-token-file", type=Path, metavar="FILE")
    parser.add_argument("--state-dir", type=Path, metavar="DIR")
    parser.add_argument(
        "--auth-config", type=Path, metavar="FILE", help="issuers whose tokens count"
    )
    parser.add_argument("--no-auth", action="store_true", help="on loopback only")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM chain; serves https")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument(
        "--rate-limit",
        type=float,
        default=RATE_DEFAULT_PER_SECOND,
        metavar="PER_SECOND",
        help="requests of one token (%(default)g); 0: any number",
    )
    parser.add_argument("--log-format", choices=logs.FORMATS, default="text")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="instead of stderr")
    given = parser.parse_args()
    options = ServeOptions(**vars(given))
    try:
        serve(options, lambda text: print(text, flush=True))
    except BadConfig as problem:
        print(f"htlease: {problem}", file=sys.stderr)
        return _EXIT_CONFIG
    except StoreFailed as problem:
        print(f"htlease: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
