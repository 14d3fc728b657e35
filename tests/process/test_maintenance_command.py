"""`htlease maintenance` as an administrator types it, over a restart of the server."""

from __future__ import annotations

import re
import time

from tests.process.command import htlease
from tests.serving import ServerProcess

from htlease.wire.protocol import rfc3339


def test_a_window_is_announced_looked_at_moved_and_withdrawn(own_server: ServerProcess) -> None:
    def maintenance(*words: str, status: int = 0) -> str:
        return htlease(own_server, "maintenance", *words, status=status)

    begin = int(time.time()) + 86400
    first, second, third = (f"{rfc3339(begin + n * 3600)[:19]}Z" for n in range(3))
    told = maintenance("announce", "--from", first, "--until", second, "--reason", "power work")
    assert told.startswith(f"No lease will run out from {first[:10]} {first[11:19]} until")
    own_server.stop()
    own_server.start()
    assert re.search(r"^announced +\S+ \S+ +\S+ \S+ +power work$", maintenance("status"), re.M)
    assert "No maintenance window is open" in (ended := maintenance("end"))
    assert "`htlease maintenance withdraw` takes back" in ended

    moved = maintenance("move", "--from", second)
    assert f"until {third[:10]} {third[11:19]}" in moved, "as long as before"
    maintenance("announce", "--from", first, "--until", second)
    assert f"name one: {second}, {first}" in maintenance("withdraw", status=2)
    assert f"no window is announced from {third}" in maintenance("withdraw", third, status=1)
    maintenance("withdraw", first)
    maintenance("withdraw")
    assert maintenance("status") == "No maintenance window is announced, open or over.\n"
    assert "no window is announced" in maintenance("move", "--until", "3d", status=1)
    assert "is in the past" in maintenance(
        "announce", "--from", "2001-01-01", "--until", "3d", status=2
    )
    assert "is not after" in maintenance("announce", "--from", "3d", "--until", "2d", status=1)
    audited = htlease(own_server, "audit")
    assert audited.count("announce-maintenance") == 3
    assert audited.count("withdraw-maintenance") == 2


def test_a_window_begins_by_itself(own_server: ServerProcess) -> None:
    htlease(own_server, "maintenance", "announce", "--from", "3s", "--until", "1h")
    own_server.stop()
    own_server.start()
    until = time.monotonic() + 30
    while "open" not in (shown := htlease(own_server, "maintenance", "status")):
        assert time.monotonic() < until, shown
    assert "The maintenance is over" in htlease(own_server, "maintenance", "end")
    assert "over" in htlease(own_server, "maintenance", "status")
