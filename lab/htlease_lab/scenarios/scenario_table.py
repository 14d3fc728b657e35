"""Which scenarios there are."""

from __future__ import annotations

from collections.abc import Mapping

from htlease_lab.scenarios import faults, kills, outages, staging_faults, wall_time
from htlease_lab.scenarios.runner import Scenario

#: Name on the command line -> the scenarios that make the scenario up.
SCENARIOS: Mapping[str, tuple[Scenario, ...]] = {
    "A": (Scenario("A", "the transfer pauses", staging_faults.pausing),),
    "B": (Scenario("B", "the stage-in fails", staging_faults.failing),),
    "C": (Scenario("C", "the credential expires", staging_faults.expiring),),
    "D": (Scenario("D", "queue and lease server are lost", staging_faults.orphaning),),
    "E": (
        Scenario("E-running", "a running transfer is grafted on", staging_faults.adopting_running),
        Scenario(
            "E-finished", "a finished transfer is grafted on", staging_faults.adopting_finished
        ),
        Scenario("E-failed", "a failed transfer is grafted on", staging_faults.adopting_failed),
        Scenario("E-unknown", "an unknown transfer is grafted on", staging_faults.adopting_unknown),
    ),
    "lost-reply": (
        Scenario(
            "lost-reply", "D, and nobody heard the task's ID", staging_faults.losing_the_reply
        ),
    ),
    "crash": (Scenario("crash", "schedd, DAGMan and watcher are killed", faults.crashing),),
    "kills": kills.KILLS,
    "hold": (Scenario("hold", "all of the workflow is held and released", faults.holding),),
    "maintenance": (Scenario("maintenance", "two weeks' outage in seconds", outages.maintaining),),
    "walltime": (
        Scenario(
            "walltime-next", "time over: the next attempt goes on", wall_time.next_attempt, False
        ),
        Scenario("walltime-hold", "time over: held for a person", wall_time.holding, False),
        Scenario("walltime-fail", "time over: failed", wall_time.failing, False),
        Scenario(
            "walltime-limit",
            "time over by HTCondor's own limit",
            wall_time.limited_by_htcondor,
            False,
        ),
    ),
}
