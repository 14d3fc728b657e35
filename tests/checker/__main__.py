"""`python -m tests.checker`: run the checker by hand, as long as you like."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.checker.broken import OF_POSTGRESQL, OF_SQLITE, RULES
from tests.checker.run import Settings, run
from tests.checker.sites import PostgresSite, SqliteSite


def main() -> int:
    """Run until the time is over or something is found; return 1 then."""
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--runs", type=int, default=1, help="with seeds that count up")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--at-once", type=int, default=48, help="subjobs alive at a time")
    parser.add_argument("--broken", choices=RULES, help="break a rule, to see it found")
    parser.add_argument(
        "--store",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="PostgreSQL with two servers",
    )
    given = parser.parse_args()
    is_shared = given.store == "postgresql"
    if given.broken in (OF_SQLITE if is_shared else OF_POSTGRESQL):
        parser.error(f"{given.broken} cannot be broken on {given.store}")
    for seed in range(given.seed, given.seed + given.runs):
        with tempfile.TemporaryDirectory() as folder:
            site = (PostgresSite if is_shared else SqliteSite)(Path(folder) / "site", given.broken)
            try:
                result = run(site, Settings(seed, given.seconds, given.at_once))
            finally:
                site.close()
        print(result, flush=True)
        found = result.findings()
        for finding in found:
            print(finding)
        if found:
            print(f"{len(found)} findings; again with --seed {seed}")
            return 1
    print("everything is explained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
