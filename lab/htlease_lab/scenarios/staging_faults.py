"""The scenarios of the staging notes: what is done to a workflow, and what then is to be seen."""

from __future__ import annotations

import signal

from htlease_lab.scenarios.runner import Play

#: What a service says of a task that it was told to end.
_REASON = "PERMISSION_DENIED"
_NO_TASK = "00000000-0000-4000-8000-000000000000"


def pausing(play: Play) -> None:
    """A: the transfer pauses, everything waits, then the workflow ends well."""
    workflow = play.workflow
    play.begin()
    workflow.wait_task()
    workflow.wait_looks(5)
    play.say("the transfer stands still; looked at five times")
    play.fact("jobs besides, while it stands still", set(), workflow.started() - {"stage-in"})
    play.stage.service.control(paused=False)
    ends_well(play, tasks=2)


def failing(play: Play) -> None:
    """B: the stage-in fails; the clean-up runs once, compute and stage-out never."""
    play.begin()
    play.workflow.wait_task()
    play.say("the task is ended by its service")
    play.stage.service.control(fail="fatal")
    ends_cleaned_up(play, _REASON, submissions=1)


def expiring(play: Play) -> None:
    """C: the credential expires; the workflow waits, tells once, and goes on by itself."""
    workflow, service = play.workflow, play.stage.service
    play.begin()
    workflow.wait_task()
    play.say("the credential expires")
    service.control(credential="token")
    action = workflow.wait_for(lambda: workflow.record("stage-in").get("action"), "the action")
    play.say(f"needs-action: {action}")
    play.fact("the action names the credential", True, str(play.stage.credential) in action)
    workflow.wait_turned_away(3)
    if play.watcher == "job":
        play.say("SIGKILL of the watcher while it waits")
        workflow.kill_watcher()
    workflow.wait_turned_away(5)
    play.fact("state", "needs-action", workflow.record("stage-in")["state"])
    play.fact("jobs besides, while it waits", set(), workflow.started() - {"stage-in"})
    play.fact("notices", 1, workflow.notice_count())
    play.say("the person logs in again")
    service.control(credential="ok", paused=False)
    ends_well(play, tasks=2)
    play.fact("notices in the end", 1, workflow.notice_count())


def orphaning(play: Play) -> None:
    """D: the queue and the lease server are lost; resubmitted, the workflow finds its transfer."""
    workflow = play.workflow
    play.begin()
    task = workflow.wait_task()
    _lose_everything(play)
    workflow.submit()
    _wait_taken_over(play)
    play.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    _goes_on(play)
    play.say("the DAG is submitted once more")
    workflow.submit("-f")
    play.fact("exit code of the DAG", 0, workflow.wait_end())
    # DAGMan's log has begun anew with -f.
    play.fact("starts of compute in that", 0, workflow.executions("compute"))
    play.fact("submissions in all", 2, play.tally()["submit"])


def losing_the_reply(play: Play) -> None:
    """As D, and the reply to the submission was lost too: nobody knows the task's ID."""
    workflow, service = play.workflow, play.stage.service
    service.control(lose_replies=1, leave_after_loss=True)
    play.begin()
    workflow.wait_for(lambda: play.tally()["accepted"] == 1, "the submission")
    play.say("the submission was accepted, its reply is lost, the service does not answer")
    record = workflow.wait_for(lambda: workflow.record("stage-in"), "the intent")
    play.fact("task on record", None, record.get("external_id"))
    _lose_everything(play)
    service.control(away=False)
    workflow.submit()
    task = workflow.wait_task()
    tasks = [known for known in service.control()["tasks"] if known == task]
    play.fact("the task found is the service's", [task], tasks)
    _goes_on(play)


def adopting_running(play: Play) -> None:
    """E, running: a transfer started by hand is grafted on, watched, and not started again."""
    task = _by_hand(play)
    play.begin("--adopt", task)
    play.fact("task of the stage-in", task, play.workflow.wait_task())
    play.workflow.wait_looks(3)
    play.stage.service.control(paused=False)
    ends_well(play, tasks=1)


def adopting_finished(play: Play) -> None:
    """E, finished: the stage-in is complete at once."""
    task, service = _by_hand(play), play.stage.service
    service.control(paused=False)
    play.workflow.wait_for(
        lambda: service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    play.begin("--adopt", task)
    ends_well(play, tasks=1)


def adopting_failed(play: Play) -> None:
    """E, failed: the stage-in fails with the task's reason; nothing is submitted in its place."""
    task, service = _by_hand(play), play.stage.service
    service.control(fail="fatal")
    play.workflow.wait_for(
        lambda: service.control()["tasks"][task] == "FAILED", "the end of the task"
    )
    play.begin("--adopt", task)
    ends_cleaned_up(play, _REASON, submissions=0)


def adopting_unknown(play: Play) -> None:
    """E, unknown: refused at once; unchecked, the stage-in fails and says which ID is wrong."""
    workflow = play.workflow
    refused = workflow.refusal("stage", "init", workflow.file.name, "--adopt", _NO_TASK)
    play.say(refused)
    play.fact("refused, with the ID", True, f"knows no task {_NO_TASK}" in refused)
    play.fact("a DAG was made", False, workflow.dag.exists())
    play.begin("--adopt", _NO_TASK, "--no-check")
    ends_cleaned_up(play, f"knows no task {_NO_TASK}", submissions=0)


# ------------------------------------------------------------ what several have in common


def ends_well(play: Play, tasks: int) -> None:
    """Wait for the good end of a workflow for which the service made so many tasks."""
    workflow = play.workflow
    play.fact("exit code of the DAG", 0, workflow.wait_end())
    order = ["compute"] if play.watcher == "defer" else ["stage-in", "compute", "stage-out"]
    play.fact("order in which jobs ran", order, workflow.order())
    play.fact("starts of compute", 1, workflow.executions("compute"))
    play.fact("starts of the clean-up", 0, workflow.executions("clean-up"))
    for node in ("stage-in", "compute", "stage-out"):
        document = workflow.subjob(node) or {}
        play.fact(f"outcome of {node}", "complete", document.get("outcome"))
    play.fact("what has arrived", "SOME INPUT\n", workflow.result())
    tally = play.tally()
    play.fact("tasks accepted by the service", tasks, tally["accepted"])
    play.fact("tasks cancelled", 0, tally["cancel"])


def ends_cleaned_up(play: Play, reason: str, submissions: int) -> None:
    """Wait for the end of a workflow whose stage-in has failed."""
    workflow = play.workflow
    play.fact("exit code of the DAG", 1, workflow.wait_end())
    order = ["clean-up"] if play.watcher == "defer" else ["stage-in", "clean-up"]
    play.fact("order in which jobs ran", order, workflow.order())
    play.fact("starts of the clean-up", 1, workflow.executions("clean-up"))
    play.fact("outcome of clean-up", "complete", (workflow.subjob("clean-up") or {})["outcome"])
    document = workflow.subjob("stage-in") or {}
    play.fact("outcome of stage-in", "failed", document.get("outcome"))
    text = workflow.record("stage-in")["text"]
    play.say(f"reason: {text}")
    play.fact(f"the reason says {reason}", True, reason in text)
    play.fact("submissions", submissions, play.tally()["submit"])


def _by_hand(play: Play) -> str:
    """Start a transfer without the workflow, and count from then on."""
    folder = play.workflow.directory
    ends = (folder / "archive/input.dat", folder / "scratch/input.dat")
    task = play.stage.service.submit([(str(ends[0]), str(ends[1]))])
    play.count()
    play.say(f"transfer {task} was started by hand")
    return task


def _lose_everything(play: Play) -> None:
    stage = play.stage
    play.say("SIGKILL of the lease server, then condor_rm -all")
    stage.lease_server.stop(signal.SIGKILL)
    stage.pool.run(["condor_rm", "-all"])
    play.workflow.wait_for(lambda: not stage.pool.jobs(), "an empty queue")
    play.say("the queue is empty; the lease server starts again")
    stage.lease_server.start()


def _wait_taken_over(play: Play) -> None:
    workflow = play.workflow
    fence = (workflow.subjob("stage-in") or {})["fence"]
    workflow.wait_for(
        lambda: (workflow.subjob("stage-in") or {})["fence"] > fence, "a watcher to take over"
    )


def _goes_on(play: Play) -> None:
    """Let a resubmitted workflow end, and compare."""
    play.fact("submissions so far", 1, play.tally()["submit"])
    play.stage.service.control(paused=False)
    ends_well(play, tasks=2)
    play.fact("submissions, stage-out's included", 2, play.tally()["submit"])
