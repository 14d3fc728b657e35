"""A server among clients that do their worst: bounded in memory and time, and fair to the others.

`HTLEASE_FUZZ_SECONDS` has it go on for longer (`make fuzz`), then with the server's own deadlines
instead of a tenth of them. `HTLEASE_FUZZ_SEED` begins with another seed; one play is played again by
`python -m tests.hostile ADDRESS --only --seed SEED`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.hasty_server import DEADLINE_MAX_SECONDS, PART
from tests.hostile.witness import Witnesses, open_connections, part
from tests.reverse_proxies import in_front_of
from tests.serving import ServerProcess

SECONDS = float(os.environ.get("HTLEASE_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("HTLEASE_FUZZ_SEED", "1"))
IS_LONG = "HTLEASE_FUZZ_SECONDS" in os.environ
#: What the server may take, whatever is sent: itself, what it holds, and what comes and goes.
MEMORY_MAX_MIB = 200
#: How long its event loop may work before a good client's request has its turn.
LOOP_MAX_SECONDS = 0.05
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server for this test alone."""
    module = "htlease_server" if IS_LONG else "tests.hostile.hasty_server"
    server = ServerProcess(tmp_path / "server", module=(module,))
    server.start()
    yield server
    server.stop()


def attack(server: ServerProcess, address: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.hostile", address, "--token", server.token("hostile")),
            *("--subjob", "/v1/workflows/hostile/subjobs/s", "--seed", str(SEED), *more),
        ],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def watched(witnesses: Witnesses, attackers: subprocess.Popen[str]) -> list[str]:
    """Return what the attackers said until they left their connections, or ended."""

    def lines() -> list[str]:
        assert attackers.stdout is not None
        told = []
        for line in attackers.stdout:
            told.append(line.strip())
            if told[-1] == "abandoned":
                break
        witnesses.end()
        return told

    told, _ = await asyncio.gather(asyncio.to_thread(lines), witnesses.watch())
    return told


@pytest.mark.timeout(SECONDS + 600)
def test_no_client_can_stall_or_fill_the_server(attacked: ServerProcess) -> None:
    witnesses = Witnesses(attacked)
    address = attacked.web_url.removeprefix("http://")
    with attack(attacked, address, "--seconds", str(SECONDS)) as attackers:
        try:
            told = asyncio.run(watched(witnesses, attackers))
            seen = witnesses.seen
            print(*told, seen.told(), sep="\n")
            assert told[-1] == "abandoned", told
            assert not seen.wrong, seen.wrong[:5]
            # Nobody of the attackers has hung up, and the witnesses have.
            longest = DEADLINE_MAX_SECONDS / (PART if IS_LONG else 1.0)
            until = time.monotonic() + longest + 20
            while (left := open_connections(attacked)) > 0 and time.monotonic() < until:
                time.sleep(0.5)
            assert left == 0, f"{left} connections have no deadline"
        finally:
            attackers.kill()
    assert "Traceback" not in attacked.log_text
    assert max(seen.resident_mib) < MEMORY_MAX_MIB, seen.told()
    assert part(seen.loop_seconds, 0.99) < LOOP_MAX_SECONDS, seen.told()


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
@pytest.mark.timeout(SECONDS + 300)
def test_no_client_of_a_proxy_can_either(tmp_path: Path, kind: str) -> None:
    """The proxy has deadlines of its own; those of the server are for it alone."""
    server = ServerProcess(tmp_path / "server")
    server.start()
    try:
        with in_front_of(server.web_url.removeprefix("http://"), kind, tmp_path / kind) as address:
            host, _, port = address.partition(":")
            witnesses = Witnesses(server, address=(host, int(port)))
            seconds = str(SECONDS / 4)
            with attack(server, address, "--proxied", "--seconds", seconds) as attackers:
                try:
                    told = asyncio.run(watched(witnesses, attackers))
                finally:
                    attackers.kill()
        seen = witnesses.seen
        print(kind, *told, seen.told(), sep="\n")
        assert told[-1] == "abandoned" and not seen.wrong, (told, seen.wrong[:5])
        assert max(seen.resident_mib) < MEMORY_MAX_MIB, seen.told()
        assert part(seen.loop_seconds, 0.99) < LOOP_MAX_SECONDS, seen.told()
        assert "Traceback" not in server.log_text
    finally:
        server.stop()
