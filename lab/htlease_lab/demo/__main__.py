"""`make demo`: server on SQLite, a pool, a three-phase job, two faults, and the timeline."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
from pathlib import Path
from typing import Any

from htlease.errors import HTLeaseError, Refused
from htlease.wire.retry import Clock, send
from htlease.wire.transport import HttpTransport
from htlease_cli.show.timeline import print_timeline
from htlease_lab.demo.local_starter import LocalSite
from htlease_lab.demo.site import PoolSite, Site
from htlease_lab.pool import PoolError

PROJECT = Path(__file__).resolve().parents[3]
EXAMPLES = PROJECT / "wrappers" / "examples"
WORKFLOW = "demo"


def main() -> int:
    """Run the drill; 0 when the job completed in spite of both faults."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--local", action="store_true", help="without HTCondor, on a stand-in")
    parser.add_argument("--suite", default=os.environ.get("HTLEASE_POOL_SUITE"))
    options = parser.parse_args()
    say("building htlease-ep.pyz")
    pyz = PROJECT / "dist" / "htlease-ep.pyz"
    build = [sys.executable, str(PROJECT / "wrappers" / "build_pyz.py"), "--output", str(pyz)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    site: Site
    if options.local:
        site = LocalSite()
    else:
        say("starting a personal HTCondor pool (the first time it is unpacked, about a minute)")
        try:
            site = PoolSite(options.suite)
        except PoolError as error:
            say(f"no HTCondor pool: {error}")
            say("playing the same drill on a local stand-in for the starter instead")
            site = LocalSite()
    try:
        with tempfile.TemporaryDirectory(prefix="htlease-demo-") as directory:
            return Drill(site, Path(directory), pyz).run()
    finally:
        site.close()


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


class Drill:
    """The main job, with two faults in its way."""

    def __init__(self, site: Site, directory: Path, pyz: Path) -> None:
        self.site = site
        self.directory = directory
        self.pyz = pyz
        self.transport = HttpTransport("http://unset", None)
        self.key = ""
        self.last_line = ""

    def run(self) -> int:
        """Play it; 0 when the subjob is complete and each grant was explained."""
        say(f"the job runs on {self.site.describe()}")
        server = self.start_server()
        try:
            self.submit()
            self.until(1, "compute", has_details=True)
            say("EVICTING the job in phase 2 (condor_vacate_job)")
            self.site.evict()
            self.until(2, None)
            say("KILLING the shadow of attempt 2 right after its start: it is never counted")
            self.site.kill_shadow()
            document = self.until(3, None, is_complete=True)
            ending = self.site.end()
            print()
            events = self.get("/history?limit=1000")["events"]
            print_timeline(events)
            print()
            self.print_counters(events)
            say(ending)
            attempts = document["attempt_number"]
            say(f"subjob {self.key}: {document['status']} after {attempts} attempts")
            return 0 if document["status"] == "complete" else 1
        finally:
            server.terminate()
            server.wait(20)

    def start_server(self) -> subprocess.Popen[str]:
        """Start the lease server as a site would, and point a client at it."""
        state = self.directory / "state"
        command = [sys.executable, "-m", "htlease_server", "--state-dir", str(state)]
        server = subprocess.Popen(
            [*command, "--listen", f"{self.site.address}:0"], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        first_line = server.stdout.readline()
        url = first_line.split()[-1]
        say(f"lease server at {url}, SQLite in {state}")
        token = (state / "admin.token").read_text().strip()
        self.transport = HttpTransport(url, token)
        return server

    def submit(self) -> None:
        """Submit the example with its server named, as a user would edit it."""
        token = self.ask("POST", "/v1/tokens", {"workflow": WORKFLOW, "ttl_seconds": 3600})["token"]
        token_file = self.directory / "htlease.token"
        token_file.write_text(token)
        token_file.chmod(0o600)
        description = self.directory / "phased.sub"
        text = (EXAMPLES / "phased.sub").read_text()
        description.write_text(text.replace("http://127.0.0.1:8620", self.transport.base_url))
        files = [path for path in EXAMPLES.iterdir() if path.suffix in (".sh", ".toml", ".py")]
        job = self.site.submit([self.pyz, token_file, *files], description)
        self.key = f"{WORKFLOW}/{job}"
        say(f"submitted {description.name} as job {job}; its subjob is {self.key}")

    def until(
        self,
        attempt: int,
        phase: str | None,
        *,
        has_details: bool = False,
        is_complete: bool = False,
    ) -> dict[str, Any]:
        """Show progress until an attempt has got that far; return the subjob."""

        def reached() -> dict[str, Any] | None:
            try:
                document = self.get("")
            except Refused:
                return None  # not yet known
            self.show(document)
            if is_complete:
                return document if document["outcome"] else None
            is_there = document["attempt_number"] >= attempt and document["status"] == "active"
            is_saved = document["details"] is not None or not has_details
            return (
                document if is_there and is_saved and phase in (None, document["phase"]) else None
            )

        what = (
            "the subjob to be closed" if is_complete else f"attempt {attempt} in {phase or 'any'}"
        )
        document: dict[str, Any] = self.site.wait_for(reached, what, 180)
        return document

    def show(self, document: dict[str, Any]) -> None:
        """Print where the subjob stands, when that has changed."""
        marks = {True: "#", False: "."}
        done = "".join(marks[phase["completed_at"] is not None] for phase in document["phases"])
        line = (
            f"  [{done}] attempt {document['attempt_number']} on {document['host']}"
            f" fence {document['fence']}: {document['phase'] or '-'} ({document['status']})"
        )
        if line != self.last_line:
            say(line)
            self.last_line = line

    def print_counters(self, events: list[dict[str, Any]]) -> None:
        """Print what HTCondor told each attempt of itself."""
        for event in events:
            if event["event"] == "lease-acquired":
                evidence = event["evidence"]
                print(
                    f"attempt {event['attempt_number']}: start {evidence['job_starts']} by"
                    f" NumJobStarts, {evidence['shadow_starts']} by NumShadowStarts -> fence"
                    f" {event['fence']}"
                )

    def get(self, rest: str) -> dict[str, Any]:
        workflow, subjob = self.key.split("/")
        return self.ask("GET", f"/v1/workflows/{workflow}/subjobs/{subjob}{rest}", None)

    def ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        return send(self.transport, Clock(), method, path, body, 20)[0]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (HTLeaseError, PoolError, TimeoutError, urllib.error.URLError) as error:
        sys.exit(f"demo: {error}")
