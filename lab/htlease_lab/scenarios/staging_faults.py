"""The scenarios of the staging notes: what is done to a workflow, and what then is to be seen."""

from __future__ import annotations

import signal

from htlease_lab.scenarios.runner import ScenarioRun

#: What a service says of a task that it was told to end.
_REASON = "PERMISSION_DENIED"
_NO_TASK = "00000000-0000-4000-8000-000000000000"


def pausing(run: ScenarioRun) -> None:
    """A: the transfer pauses, everything waits, then the workflow ends well."""
    workflow = run.workflow
    run.begin()
    workflow.wait_task()
    workflow.wait_looks(5)
    run.say("the transfer stands still; looked at five times")
    run.fact("jobs besides, while it stands still", set(), workflow.started() - {"stage-in"})
    run.environment.service.control(paused=False)
    ends_well(run, tasks=2)


def failing(run: ScenarioRun) -> None:
    """B: the stage-in fails; the clean-up runs once, compute and stage-out never."""
    run.begin()
    run.workflow.wait_task()
    run.say("the task is ended by its service")
    run.environment.service.control(fail="fatal")
    ends_cleaned_up(run, _REASON, submissions=1)


def expiring(run: ScenarioRun) -> None:
    """C: the credential expires; the workflow waits, tells once, and goes on by itself."""
    workflow, service = run.workflow, run.environment.service
    run.begin()
    workflow.wait_task()
    run.say("the credential expires")
    service.control(credential="token")
    action = workflow.wait_for(lambda: workflow.record("stage-in").get("action"), "the action")
    run.say(f"needs-action: {action}")
    run.fact("the action names the credential", True, str(run.environment.credential) in action)
    workflow.wait_turned_away(3)
    if run.watcher == "job":
        run.say("SIGKILL of the watcher while it waits")
        workflow.kill_watcher()
    workflow.wait_turned_away(5)
    run.fact("state", "needs-action", workflow.record("stage-in")["state"])
    run.fact("jobs besides, while it waits", set(), workflow.started() - {"stage-in"})
    run.fact("notices", 1, workflow.notice_count())
    run.say("the person logs in again")
    service.control(credential="ok", paused=False)
    ends_well(run, tasks=2)
    run.fact("notices in the end", 1, workflow.notice_count())


def orphaning(run: ScenarioRun) -> None:
    """D: the queue and the lease server are lost; resubmitted, the workflow finds its transfer."""
    workflow = run.workflow
    run.begin()
    task = workflow.wait_task()
    _lose_everything(run)
    workflow.submit()
    _wait_taken_over(run)
    run.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    _goes_on(run)
    run.say("the DAG is submitted once more")
    workflow.submit("-f")
    run.fact("exit code of the DAG", 0, workflow.wait_end())
    # DAGMan's log has begun anew with -f.
    run.fact("starts of compute in that", 0, workflow.executions("compute"))
    run.fact("submissions in all", 2, run.tally()["submit"])


def losing_the_reply(run: ScenarioRun) -> None:
    """As D, and the reply to the submission was lost too: nobody knows the task's ID."""
    workflow, service = run.workflow, run.environment.service
    service.control(lose_replies=1, leave_after_loss=True)
    run.begin()
    workflow.wait_for(lambda: run.tally()["accepted"] == 1, "the submission")
    run.say("the submission was accepted, its reply is lost, the service does not answer")
    record = workflow.wait_for(lambda: workflow.record("stage-in"), "the intent")
    run.fact("task on record", None, record.get("external_id"))
    _lose_everything(run)
    service.control(away=False)
    workflow.submit()
    task = workflow.wait_task()
    tasks = [known for known in service.control()["tasks"] if known == task]
    run.fact("the task found is the service's", [task], tasks)
    _goes_on(run)


def adopting_running(run: ScenarioRun) -> None:
    """E, running: a transfer started by hand is grafted on, watched, and not started again."""
    task = _by_hand(run)
    run.begin("--adopt", task)
    run.fact("task of the stage-in", task, run.workflow.wait_task())
    run.workflow.wait_looks(3)
    run.environment.service.control(paused=False)
    ends_well(run, tasks=1)


def adopting_finished(run: ScenarioRun) -> None:
    """E, finished: the stage-in is complete at once."""
    task, service = _by_hand(run), run.environment.service
    service.control(paused=False)
    run.workflow.wait_for(
        lambda: service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    run.begin("--adopt", task)
    ends_well(run, tasks=1)


def adopting_failed(run: ScenarioRun) -> None:
    """E, failed: the stage-in fails with the task's reason; nothing is submitted in its place."""
    task, service = _by_hand(run), run.environment.service
    service.control(fail="fatal")
    run.workflow.wait_for(
        lambda: service.control()["tasks"][task] == "FAILED", "the end of the task"
    )
    run.begin("--adopt", task)
    ends_cleaned_up(run, _REASON, submissions=0)


def adopting_unknown(run: ScenarioRun) -> None:
    """E, unknown: refused at once; unchecked, the stage-in fails and says which ID is wrong."""
    workflow = run.workflow
    refused = workflow.refusal("stage", "init", workflow.file.name, "--adopt", _NO_TASK)
    run.say(refused)
    run.fact("refused, with the ID", True, f"knows no task {_NO_TASK}" in refused)
    run.fact("a DAG was made", False, workflow.dag.exists())
    run.begin("--adopt", _NO_TASK, "--no-check")
    ends_cleaned_up(run, f"knows no task {_NO_TASK}", submissions=0)


# ------------------------------------------------------------ what several have in common


def ends_well(run: ScenarioRun, tasks: int) -> None:
    """Wait for the good end of a workflow for which the service made so many tasks."""
    workflow = run.workflow
    run.fact("exit code of the DAG", 0, workflow.wait_end())
    order = ["compute"] if run.watcher == "defer" else ["stage-in", "compute", "stage-out"]
    run.fact("order in which jobs ran", order, workflow.order())
    run.fact("starts of compute", 1, workflow.executions("compute"))
    run.fact("starts of the clean-up", 0, workflow.executions("clean-up"))
    for node in ("stage-in", "compute", "stage-out"):
        document = workflow.subjob(node) or {}
        run.fact(f"outcome of {node}", "complete", document.get("outcome"))
    run.fact("what has arrived", "SOME INPUT\n", workflow.result())
    tally = run.tally()
    run.fact("tasks accepted by the service", tasks, tally["accepted"])
    run.fact("tasks cancelled", 0, tally["cancel"])


def ends_cleaned_up(run: ScenarioRun, reason: str, submissions: int) -> None:
    """Wait for the end of a workflow whose stage-in has failed."""
    workflow = run.workflow
    run.fact("exit code of the DAG", 1, workflow.wait_end())
    order = ["clean-up"] if run.watcher == "defer" else ["stage-in", "clean-up"]
    run.fact("order in which jobs ran", order, workflow.order())
    run.fact("starts of the clean-up", 1, workflow.executions("clean-up"))
    run.fact("outcome of clean-up", "complete", (workflow.subjob("clean-up") or {})["outcome"])
    document = workflow.subjob("stage-in") or {}
    run.fact("outcome of stage-in", "failed", document.get("outcome"))
    text = workflow.record("stage-in")["text"]
    run.say(f"reason: {text}")
    run.fact(f"the reason says {reason}", True, reason in text)
    run.fact("submissions", submissions, run.tally()["submit"])


def _by_hand(run: ScenarioRun) -> str:
    """Start a transfer without the workflow, and count from then on."""
    folder = run.workflow.directory
    ends = (folder / "archive/input.dat", folder / "scratch/input.dat")
    task = run.environment.service.submit([(str(ends[0]), str(ends[1]))])
    run.count()
    run.say(f"transfer {task} was started by hand")
    return task


def _lose_everything(run: ScenarioRun) -> None:
    environment = run.environment
    run.say("SIGKILL of the lease server, then condor_rm -all")
    environment.lease_server.stop(signal.SIGKILL)
    environment.pool.run(["condor_rm", "-all"])
    run.workflow.wait_for(lambda: not environment.pool.jobs(), "an empty queue")
    run.say("the queue is empty; the lease server starts again")
    environment.lease_server.start()


def _wait_taken_over(run: ScenarioRun) -> None:
    workflow = run.workflow
    fence = (workflow.subjob("stage-in") or {})["fence"]
    workflow.wait_for(
        lambda: (workflow.subjob("stage-in") or {})["fence"] > fence, "a watcher to take over"
    )


def _goes_on(run: ScenarioRun) -> None:
    """Let a resubmitted workflow end, and compare."""
    run.fact("submissions so far", 1, run.tally()["submit"])
    run.environment.service.control(paused=False)
    ends_well(run, tasks=2)
    run.fact("submissions, stage-out's included", 2, run.tally()["submit"])
