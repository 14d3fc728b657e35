#!/usr/bin/env python3
"""One phase of a test job: tells the witness what happens, and behaves as `behaviour.json` says.

behaviour.json: {"witness": URL, "block": {PHASE: [ATTEMPT NUMBER, ...]}, "block_seconds": S,
"exit": {PHASE: {ATTEMPT NUMBER: CODE}}, "checkpoints": {PHASE: N}, "ignore_term": BOOL}
"""

import json
import os
import pathlib
import select
import signal
import sys
import time
import urllib.request

PHASE = os.environ["HTLEASE_PHASE"]
ATTEMPT = os.environ["HTLEASE_ATTEMPT_NUMBER"]
BEHAVIOUR = json.loads(pathlib.Path("behaviour.json").read_text())


def tell(what: str, **more: object) -> None:
    note = {
        "what": what,
        "key": os.environ["HTLEASE_KEY"],
        "phase": PHASE,
        "attempt": int(ATTEMPT),
        "fence": int(os.environ["HTLEASE_FENCE"]),
        "pid": os.getpid(),
        "clock": time.time(),
        **more,
    }
    request = urllib.request.Request(BEHAVIOUR["witness"], json.dumps(note).encode())
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except OSError:
        pass  # cut off from the witness; the payload goes on, as a real one would


def save_details(text: str) -> None:
    details = pathlib.Path(os.environ["HTLEASE_DETAILS"])
    new = details.with_name(details.name + ".new")
    new.write_text(text)
    new.rename(details)


def main() -> int:
    if BEHAVIOUR.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    details = pathlib.Path(os.environ["HTLEASE_DETAILS"])
    tell("start", details=details.read_text() if details.exists() else None)
    marker = pathlib.Path(f"checkpoints-of-{PHASE}")
    done = len(marker.read_text()) if marker.exists() else 0
    if done < BEHAVIOUR.get("checkpoints", {}).get(PHASE, 0):
        marker.write_text("x" * (done + 1))
        tell("checkpoint")
        return 85
    if int(ATTEMPT) in BEHAVIOUR.get("block", {}).get(PHASE, []):
        save_details(f"{PHASE} of attempt {ATTEMPT}")
        end = time.monotonic() + BEHAVIOUR.get("block_seconds", 300)
        while time.monotonic() < end:
            tell("alive")
            select.select([], [], [], 0.5)  # libfaketime fails some sleeps: EINVAL
    code = int(BEHAVIOUR.get("exit", {}).get(PHASE, {}).get(ATTEMPT, 0))
    pathlib.Path(f"result-{PHASE}").write_text(f"attempt {ATTEMPT}\n")
    tell("end", code=code)
    return code


if __name__ == "__main__":
    sys.exit(main())
