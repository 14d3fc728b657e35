"""Scenario `kills`: the stage-in fails, and somebody is killed at the worst moment.

However that goes, HTCondor's own logs have to show one submission of the transfer and one clean-up,
and the failed workflow stays as it is until a person submits it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from htlease_lab.scenarios.faults import kill_dagman, wait_schedd
from htlease_lab.scenarios.runner import Scenario, ScenarioRun

_CLEAN_UP_SECONDS = 2
#: A moment has to be met, and none of the files looked at is on a network.
_LOOK_SECONDS = 0.02
#: For what was killed to come back, and a lease to run out meanwhile.
_END_SECONDS = 300.0
#: So long nothing more may happen after the end; DAGMan would be back in half of it.
_QUIET_SECONDS = 8.0
#: Between the ends of two watchers that are killed.
DEATHS = 7


def _has_failed(run: ScenarioRun) -> bool:
    return (run.workflow.subjob("stage-in") or {}).get("outcome") == "failed"


def _cleans_up(run: ScenarioRun) -> bool:
    return run.workflow.cleaned_up("begun") > 0


def _has_cleaned_up(run: ScenarioRun) -> bool:
    return run.workflow.cleaned_up("done") > 0


def _has_given_up(run: ScenarioRun) -> bool:
    """Tell whether DAGMan has written its rescue DAG, which the next DAGMan would begin with."""
    return any(run.workflow.directory.glob("*.rescue*"))


def _kill_schedd(run: ScenarioRun) -> None:
    run.environment.pool.kill_schedd()
    wait_schedd(run)


def _kill_server(run: ScenarioRun) -> None:
    server = run.environment.lease_server
    server.stop(signal.SIGKILL)
    time.sleep(1.0)
    server.start()


_MOMENTS = {
    "failed": _has_failed,
    "cleaning": _cleans_up,
    "cleaned": _has_cleaned_up,
    "rescue": _has_given_up,
}
_VICTIMS = {"schedd": _kill_schedd, "dagman": kill_dagman, "server": _kill_server}
_KILLS = (
    *(("schedd", moment) for moment in _MOMENTS),
    *(("dagman", moment) for moment in ("failed", "cleaning", "cleaned")),
    *(("server", moment) for moment in ("failed", "cleaning")),
)


def _failing(
    victim: Callable[[ScenarioRun], None],
    moment: Callable[[ScenarioRun], bool],
    title: str,
    run: ScenarioRun,
) -> None:
    workflow = run.workflow
    text = workflow.directory / "clean-up.sub"
    workflow.write({text.name: f"seconds = {_CLEAN_UP_SECONDS}\n{text.read_text()}"})
    run.begin()
    workflow.wait_task()
    run.environment.service.control(fail="fatal")
    workflow.pool.wait_for(lambda: moment(run), "the moment", _END_SECONDS, _LOOK_SECONDS)
    run.say(f"SIGKILL of {title}")
    victim(run)
    run.fact("exit code of the DAG", 1, workflow.wait_end(_END_SECONDS))
    _is_over(run)
    run.say("the DAG is submitted again")
    run.environment.service.repair()
    workflow.submit()
    run.fact("exit code of the DAG", 0, workflow.wait_end(_END_SECONDS))
    run.fact("submissions, each stage once more", 3, run.tally()["submit"])


def _is_over(run: ScenarioRun) -> None:
    """Wait until nothing happens any more, and compare."""
    workflow = run.workflow
    workflow.wait_for(lambda: not run.environment.pool.jobs(), "an empty queue", _END_SECONDS)
    time.sleep(_QUIET_SECONDS)
    run.fact("jobs in the queue", 0, len(run.environment.pool.jobs()))
    run.fact("submissions of the transfer", 1, run.tally()["submit"])
    run.fact("jobs of the clean-up that ran", 1, len(workflow.jobs_started("clean-up")))
    run.fact("clean-ups done", 1, workflow.cleaned_up("done"))
    for node, outcome in (("stage-in", "failed"), ("clean-up", "complete")):
        run.fact(f"outcome of {node}", outcome, (workflow.subjob(node) or {}).get("outcome"))


def dying_watchers(run: ScenarioRun) -> None:
    """Watchers are killed outright again and again while a person has to log in; nothing fails."""
    workflow, service = run.workflow, run.environment.service
    run.begin()
    workflow.wait_task()
    service.control(credential="token")
    workflow.wait_for(lambda: workflow.record("stage-in").get("action"), "the action")
    for number in range(1, DEATHS + 1):
        workflow.wait_turned_away(1)
        killed = workflow.wait_for(workflow.kill_watchers, "a watcher to kill")
        run.say(f"SIGKILL of the watcher, {number} of {DEATHS} ({killed} processes)")
    service.control(credential="ok", paused=False)
    run.fact("exit code of the DAG", 0, workflow.wait_end(_END_SECONDS))
    run.fact("submissions", 2, run.tally()["submit"])
    run.fact("notices", 1, workflow.notice_count())


KILLS = (
    *(
        Scenario(
            f"kills-{victim}-{moment}",
            f"the stage-in fails, and the {victim} is killed ({moment})",
            partial(_failing, _VICTIMS[victim], _MOMENTS[moment], f"the {victim}"),
        )
        for victim, moment in _KILLS
    ),
    Scenario("kills-watcher", "the credential expires, and watchers are killed", dying_watchers),
)
