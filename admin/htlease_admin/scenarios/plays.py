"""The scenarios: what is done, what is to be seen, and what was seen.

Each play does to a workflow what its notes say and compares order and counts of what happened.
`htlease scenario` prints that; the pool tests assert it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from htlease_admin.scenarios.stage import Stage
from htlease_admin.scenarios.workflow import Workflow

NODES = ("stage-in", "compute", "stage-out", "clean-up")


@dataclass
class Played:
    """What one play has shown."""

    workflow: Workflow
    #: (what, wanted, seen)
    facts: list[tuple[str, Any, Any]] = field(default_factory=list)

    def fact(self, what: str, wanted: Any, seen: Any) -> None:
        """Note what was to be seen and what was."""
        self.facts.append((what, wanted, seen))
        mark = "as it should be" if wanted == seen else f"SHOULD BE {wanted!r}"
        self.workflow.stage.say(f"  {what}: {seen!r}  {mark}")

    @property
    def wrong(self) -> list[tuple[str, Any, Any]]:
        """Return what was not as it should be."""
        return [fact for fact in self.facts if fact[1] != fact[2]]


Play = Callable[[Stage, str, str], Played]


def begin(stage: Stage, name: str, watcher: str, backend: str) -> Workflow:
    """Make a workflow for a service that is in order but for being paused."""
    if backend == "globus":
        stage.add_globus()
    stage.service.control(
        paused=True, away=False, credential="ok", lose_replies=0, leave_after_loss=False, fail=None
    )
    stage.number += 1
    stage.say(f"--- scenario {name}: watcher {watcher}, back-end {backend}")
    return Workflow(stage, f"{name}-{stage.number}", watcher, backend)


def pausing(stage: Stage, watcher: str, backend: str) -> Played:
    """A: the transfer pauses, everything waits, then the workflow ends well."""
    workflow = begin(stage, "A", watcher, backend)
    before = workflow.tally()
    workflow.init()
    workflow.submit()
    workflow.wait_task()
    workflow.wait_looks(5)
    stage.say("the transfer stands still; looked at five times")
    played = Played(workflow)
    played.fact("jobs while it stands still", set(), workflow.started() - {"stage-in"})
    stage.service.control(paused=False)
    played.fact("exit code of the DAG", 0, workflow.wait_end())
    _ends_well(played, watcher)
    played.fact("tasks accepted by the service", 2, workflow.tally(before)["accepted"])
    return played


def failing(stage: Stage, watcher: str, backend: str) -> Played:
    """B: the stage-in fails; the clean-up runs once, compute and stage-out never."""
    workflow = begin(stage, "B", watcher, backend)
    before = workflow.tally()
    workflow.init()
    workflow.submit()
    workflow.wait_task()
    stage.say("the task is ended by its service")
    stage.service.control(fail="fatal")
    played = Played(workflow)
    played.fact("exit code of the DAG", 1, workflow.wait_end())
    _ends_cleaned_up(played, watcher, "PERMISSION_DENIED")
    played.fact("tasks accepted by the service", 1, workflow.tally(before)["accepted"])
    return played


def expiring(stage: Stage, watcher: str, backend: str) -> Played:
    """C: the credential expires; the workflow waits, tells once, and goes on by itself."""
    workflow = begin(stage, "C", watcher, backend)
    before = workflow.tally()
    workflow.init()
    workflow.submit()
    workflow.wait_task()
    stage.say("the credential expires")
    stage.service.control(credential="token")
    played = Played(workflow)
    action = workflow.wait_for(lambda: workflow.record("stage-in").get("action"), "the action")
    stage.say(f"needs-action: {action}")
    played.fact("the action names the credential", True, str(stage.credential) in action)
    workflow.wait_turned_away(3)
    if watcher == "job":
        stage.say("SIGKILL of the watcher while it waits")
        workflow.kill_watcher()
    workflow.wait_turned_away(5)
    played.fact("state", "needs-action", workflow.record("stage-in")["state"])
    played.fact("notices", 1, workflow.notice_count())
    stage.say("the person logs in again")
    stage.service.control(credential="ok", paused=False)
    played.fact("exit code of the DAG", 0, workflow.wait_end())
    _ends_well(played, watcher)
    played.fact("notices in the end", 1, workflow.notice_count())
    played.fact("tasks accepted by the service", 2, workflow.tally(before)["accepted"])
    return played


def orphaning(stage: Stage, watcher: str, backend: str) -> Played:
    """D: the queue and the lease server are lost; resubmitted, the workflow finds its transfer."""
    workflow = begin(stage, "D", watcher, backend)
    before = workflow.tally()
    workflow.init()
    workflow.submit()
    task = workflow.wait_task()
    played = Played(workflow)
    _lose_everything(workflow)
    workflow.submit()
    _wait_taken_over(workflow)
    played.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    _resumed(played, watcher, before)
    return played


def losing_the_reply(stage: Stage, watcher: str, backend: str) -> Played:
    """As D, and the reply to the submission was lost too: nobody knows the task's ID."""
    workflow = begin(stage, "lost-reply", watcher, backend)
    before = workflow.tally()
    stage.service.control(lose_replies=1, leave_after_loss=True)
    workflow.init()
    workflow.submit()
    workflow.wait_for(lambda: workflow.tally(before)["accepted"] == 1, "the submission")
    stage.say("the submission was accepted, its reply is lost, the service does not answer")
    played = Played(workflow)
    record = workflow.wait_for(lambda: workflow.record("stage-in"), "the intent")
    played.fact("task on record", None, record.get("external_id"))
    _lose_everything(workflow)
    stage.service.control(away=False)
    workflow.submit()
    task = workflow.wait_task()
    tasks = [task_id for task_id in stage.service.control()["tasks"] if task_id == task]
    played.fact("the task found is the service's", [task], tasks)
    _resumed(played, watcher, before)
    return played


def adopting_running(stage: Stage, watcher: str, backend: str) -> Played:
    """E, running: a transfer started by hand is grafted on, watched, and not started again."""
    workflow, task = _by_hand(stage, "E-running", watcher, backend)
    before = workflow.tally()
    stage.say(workflow.init("--adopt", task))
    workflow.submit()
    played = Played(workflow)
    played.fact("task of the stage-in", task, workflow.wait_task())
    workflow.wait_looks(3)
    stage.service.control(paused=False)
    played.fact("exit code of the DAG", 0, workflow.wait_end())
    _ends_well(played, watcher)
    _only_stage_out(played, before)
    return played


def adopting_finished(stage: Stage, watcher: str, backend: str) -> Played:
    """E, finished: the stage-in is complete at once."""
    workflow, task = _by_hand(stage, "E-finished", watcher, backend)
    before = workflow.tally()
    stage.service.control(paused=False)
    workflow.wait_for(
        lambda: stage.service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    stage.say(workflow.init("--adopt", task))
    workflow.submit()
    played = Played(workflow)
    played.fact("exit code of the DAG", 0, workflow.wait_end())
    _ends_well(played, watcher)
    _only_stage_out(played, before)
    return played


def adopting_failed(stage: Stage, watcher: str, backend: str) -> Played:
    """E, failed: the stage-in fails with the task's reason; nothing is submitted in its place."""
    workflow, task = _by_hand(stage, "E-failed", watcher, backend)
    before = workflow.tally()
    stage.service.control(fail="fatal")
    workflow.wait_for(
        lambda: stage.service.control()["tasks"][task] == "FAILED", "the end of the task"
    )
    stage.say(workflow.init("--adopt", task))
    workflow.submit()
    played = Played(workflow)
    played.fact("exit code of the DAG", 1, workflow.wait_end())
    _ends_cleaned_up(played, watcher, "PERMISSION_DENIED")
    played.fact("submissions", 0, workflow.tally(before)["submit"])
    return played


def adopting_unknown(stage: Stage, watcher: str, backend: str) -> Played:
    """E, unknown: refused at once; unchecked, the stage-in fails and says which ID is wrong."""
    workflow = begin(stage, "E-unknown", watcher, backend)
    before = workflow.tally()
    played = Played(workflow)
    task = "00000000-0000-4000-8000-000000000000"
    refused = workflow.refusal("stage", "init", workflow.file.name, "--adopt", task)
    stage.say(refused)
    played.fact("refused, with the ID", True, f"knows no task {task}" in refused)
    played.fact("a DAG was made", False, workflow.dag.exists())
    stage.say(workflow.init("--adopt", task, "--no-check"))
    workflow.submit()
    played.fact("exit code of the DAG", 1, workflow.wait_end())
    _ends_cleaned_up(played, watcher, f"knows no task {task}")
    played.fact("submissions", 0, workflow.tally(before)["submit"])
    return played


#: Name -> the plays that make the scenario up.
SCENARIOS: dict[str, tuple[Play, ...]] = {
    "A": (pausing,),
    "B": (failing,),
    "C": (expiring,),
    "D": (orphaning,),
    "E": (adopting_running, adopting_finished, adopting_failed, adopting_unknown),
    "lost-reply": (losing_the_reply,),
}


# ------------------------------------------------------------ what several have in common


def _ends_well(played: Played, watcher: str) -> None:
    workflow = played.workflow
    order = ["compute"] if watcher == "defer" else ["stage-in", "compute", "stage-out"]
    played.fact("order in which jobs ran", order, workflow.order())
    played.fact("starts of compute", 1, workflow.executions("compute"))
    played.fact("starts of the clean-up", 0, workflow.executions("clean-up"))
    for node in ("stage-in", "stage-out"):
        document = workflow.subjob(node) or {}
        played.fact(f"outcome of {node}", "complete", document.get("outcome"))
    played.fact("what has arrived", "SOME INPUT\n", workflow.result())


def _ends_cleaned_up(played: Played, watcher: str, reason: str) -> None:
    workflow = played.workflow
    order = ["clean-up"] if watcher == "defer" else ["stage-in", "clean-up"]
    played.fact("order in which jobs ran", order, workflow.order())
    played.fact("starts of the clean-up", 1, workflow.executions("clean-up"))
    document = workflow.subjob("stage-in") or {}
    played.fact("outcome of stage-in", "failed", document.get("outcome"))
    text = workflow.record("stage-in")["text"]
    workflow.stage.say(f"reason: {text}")
    played.fact(f"the reason says {reason}", True, reason in text)


def _by_hand(stage: Stage, name: str, watcher: str, backend: str) -> tuple[Workflow, str]:
    workflow = begin(stage, name, watcher, backend)
    ends = (workflow.directory / "archive/input.dat", workflow.directory / "scratch/input.dat")
    task = stage.service.submit([(str(ends[0]), str(ends[1]))])
    stage.say(f"transfer {task} was started by hand")
    return workflow, task


def _only_stage_out(played: Played, before: dict[str, int]) -> None:
    tally = played.workflow.tally(before)
    played.fact("tasks accepted after the adopted one", 1, tally["accepted"])
    played.fact("tasks cancelled", 0, tally["cancel"])


def _lose_everything(workflow: Workflow) -> None:
    stage = workflow.stage
    stage.say("SIGKILL of the lease server, then condor_rm -all")
    stage.lease_server.stop(signal.SIGKILL)
    stage.pool.run(["condor_rm", "-all"])
    workflow.wait_for(lambda: not stage.pool.jobs(), "an empty queue")
    stage.say("the queue is empty; the lease server starts again")
    stage.lease_server.start()


def _wait_taken_over(workflow: Workflow) -> None:
    fence = (workflow.subjob("stage-in") or {})["fence"]
    workflow.wait_for(
        lambda: (workflow.subjob("stage-in") or {})["fence"] > fence, "a watcher to take over"
    )


def _resumed(played: Played, watcher: str, before: dict[str, int]) -> None:
    """Let a resubmitted workflow end, and compare."""
    workflow = played.workflow
    played.fact("submissions so far", 1, workflow.tally(before)["submit"])
    workflow.stage.service.control(paused=False)
    played.fact("exit code of the DAG", 0, workflow.wait_end())
    _ends_well(played, watcher)
    tally = workflow.tally(before)
    played.fact("submissions, stage-out's included", 2, tally["submit"])
    played.fact("tasks accepted by the service", 2, tally["accepted"])
    played.fact("tasks cancelled", 0, tally["cancel"])
