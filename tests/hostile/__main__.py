"""`python -m tests.hostile HOST:PORT`: play against a server for a while; the seed of each play is told.

Ends with 1 and says what was wrong, and with which seed, if an answer was. At the end it leaves
connections in every state, says so, and keeps them until its input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time

from tests.hostile.line import Line, NoAnswer
from tests.hostile.plays import PLAYS, Target, Wrong, openapi, stranger, unknown

ABANDONED = 100
#: Plays that take longer than the rest are broken off.
LATE_SECONDS = 10.0


async def play(seed: int, target: Target) -> str:
    """Play what a seed says on one connection; raises Wrong."""
    draw = random.Random(seed)
    chosen = draw.choices([each for _, each in PLAYS], [weight for weight, _ in PLAYS])[0]
    line = Line(target.address, draw)
    try:
        await line.open()
        if not line.is_closed:
            await chosen(line, target)
    except NoAnswer as problem:
        if not target.is_direct:  # a proxy answers what it takes for HTTP/0.9 without a head
            return chosen.__name__
        raise Wrong(f"what came back is no answer: {problem}") from problem
    finally:
        line.close()
    return chosen.__name__


async def attack(target: Target, first_seed: int, seconds: float, crowd: int) -> dict[str, int]:
    """Play with so many clients at once; return how often each play was played."""
    seeds, until = iter(range(first_seed, sys.maxsize)), time.monotonic() + seconds
    counts: dict[str, int] = {}

    async def client() -> None:
        while time.monotonic() < until:
            seed = next(seeds)
            try:
                name = await play(seed, target)
            except Wrong as problem:
                raise Wrong(f"seed {seed}: {problem}") from problem
            counts[name] = counts.get(name, 0) + 1

    clients = [asyncio.create_task(client()) for _ in range(crowd)]
    failed, late = await asyncio.wait(
        clients, timeout=seconds + LATE_SECONDS, return_when=asyncio.FIRST_EXCEPTION
    )
    for each in late:
        each.cancel()
    for each in failed:
        each.result()
    return counts


async def abandon(target: Target, seed: int) -> list[Line]:
    """Leave connections in every state in which the server might wait for ever."""
    draw = random.Random(seed)
    states = [
        b"",
        b"\r\n",
        unknown().data,
        unknown().data[:-3],
        unknown().data * 50,
        stranger().data[:-1] + b"x",
        stranger().data[:150],
        openapi().data * 300,
        b"GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n" + b"x" * 100,
        openapi().data.replace(b"Host", b"Connection: close\r\nHost") + unknown().data,
        b"no request\r\n\r\n",
    ]
    lines = []
    for number in range(ABANDONED):
        line = Line(target.address, draw)
        await line.open()
        await line.send(states[number % len(states)])
        if draw.random() < 0.3:
            line.end_sending()
        lines.append(line)
    return lines


async def main() -> int:
    """Do as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--token", required=True)
    parser.add_argument("--subjob", required=True, metavar="PATH")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="store_true", help="the play of this seed alone")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--crowd", type=int, default=80)
    parser.add_argument("--proxied", action="store_true")
    given = parser.parse_args()
    host, _, port = given.address.rpartition(":")
    target = Target((host, int(port)), given.token, given.subjob, not given.proxied)
    try:
        if given.only:
            print(await play(given.seed, target))
            return 0
        counts = await attack(target, given.seed, given.seconds, given.crowd)
    except Wrong as problem:
        print(problem, flush=True)
        return 1
    print(f"from seed {given.seed}:", sum(counts.values()), "plays", counts, flush=True)
    left = await abandon(target, given.seed)
    print("abandoned", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for line in left:
        line.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
