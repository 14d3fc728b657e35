"""A job of a scenario that `htlease submit` puts under the wrapper, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

from htlease.rules.attempt import SubjobKey
from htlease_lab.scenarios.runner import ScenarioRun

_HELD = 12
#: Saves what it has done when it is asked to end; the last part ends by itself.
_PAYLOAD = """\
#!/bin/sh
part=$(( $(cat "$HTLEASE_DETAILS" 2>/dev/null | wc -l) + 1 ))
save() {
    { cat "$HTLEASE_DETAILS" 2>/dev/null; echo "part $part by attempt $HTLEASE_ATTEMPT_NUMBER"; } \\
        > "$HTLEASE_DETAILS.new" && mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"
}
if [ "$part" = "$1" ]; then save; exit 0; fi
trap 'save; exit 1' TERM
while :; do sleep 0.1; done
"""
_PLAN = """\
ttl_seconds = 10
{limit}
on_wall_time = "{policy}"
[[phase]]
name = "compute"
run = ["./compute.sh", "{parts}"]
restart = "resume"
"""
_SUBMIT = """\
executable = compute.sh
request_memory = 64
request_disk = 1
output = compute.out
error = compute.err
log = compute.log
{limit}
queue
"""


class WrappedJob:
    """A job of several parts, of which each start does one and then runs until it is ended."""

    def __init__(self, run: ScenarioRun, policy: str, parts: int, limit: str = "") -> None:
        """Write its files; `limit` is a submit command, without which the plan has a limit."""
        self._run, self._workflow = run, run.workflow
        self._log = self._workflow.directory / "compute.log"
        own = "" if limit else "wall_time_seconds = 8"
        self._workflow.write(
            {
                "compute.sh": _PAYLOAD,
                "plan.toml": _PLAN.format(limit=own, policy=policy, parts=parts),
                "compute.sub": _SUBMIT.format(limit=limit),
            }
        )
        run.say(f'on_wall_time = "{policy}", {limit or own}')

    def submit(self) -> None:
        """Submit it."""
        wrapper = str(self._run.environment.wrapper())
        said = self._workflow.htlease(
            "submit", "compute.sub", "--plan", "plan.toml", "--pyz", wrapper, "--json"
        )
        document = json.loads(said)
        (job,) = document["jobs"]
        self.id = f"{document['cluster']}.{job['proc']}"
        self.key = SubjobKey.parse(job["subjob"])
        self._run.say(f"htlease submit compute.sub: job {self.id}, subjob {self.key}")

    def wait_status(self, status: str) -> None:
        """Wait until the job is in that state, in words of the pool."""
        self._workflow.wait_for(lambda: self._status() == status, f"the job to be {status}")
        self._run.say(f"the job is {status}")

    def _status(self) -> str:
        return self._run.environment.pool.status(self.id)

    def ad(self) -> dict[str, Any]:
        """Return the job's ad, from the history when it has left the queue."""
        return self._run.environment.pool.job_ad(self.id)

    def holds(self) -> list[str]:
        """Return what its log says of each hold."""
        events = self._run.environment.pool.events(self._log, _HELD)
        return [event.text.splitlines()[1].strip() for event in events]

    def subjob(self) -> dict[str, Any]:
        """Return what the lease server knows."""
        return self._run.environment.server().subjob(self.key)

    def commit(self) -> str:
        """Say that the outputs came back; return what the command printed."""
        return self._workflow.htlease("commit", str(self.key))

    def parts_done(self) -> list[str]:
        """Return what was saved of each part."""
        return (self.subjob()["details"] or "").splitlines()

    def reasons(self) -> list[str | None]:
        """Return the first word of why each attempt ended, where there is a reason."""
        reasons = [attempt["reason"] for attempt in self.subjob()["attempts"]]
        return [reason and reason.partition(":")[0] for reason in reasons]
