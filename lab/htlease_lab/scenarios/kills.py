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
from htlease_lab.scenarios.runner import Play, Scenario

_CLEAN_UP_SECONDS = 2
#: A moment has to be met, and none of the files looked at is on a network.
_LOOK_SECONDS = 0.02
#: For what was killed to come back, and a lease to run out meanwhile.
_END_SECONDS = 300.0
#: So long nothing more may happen after the end; DAGMan would be back in half of it.
_QUIET_SECONDS = 8.0
#: Between the ends of two watchers that are killed.
DEATHS = 7


def _has_failed(play: Play) -> bool:
    return (play.workflow.subjob("stage-in") or {}).get("outcome") == "failed"


def _cleans_up(play: Play) -> bool:
    return play.workflow.cleaned_up("begun") > 0


def _has_cleaned_up(play: Play) -> bool:
    return play.workflow.cleaned_up("done") > 0


def _has_given_up(play: Play) -> bool:
    """Tell whether DAGMan has written its rescue DAG, which the next DAGMan would begin with."""
    return any(play.workflow.directory.glob("*.rescue*"))


def _kill_schedd(play: Play) -> None:
    play.stage.pool.kill_schedd()
    wait_schedd(play)


def _kill_server(play: Play) -> None:
    server = play.stage.lease_server
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
    victim: Callable[[Play], None], moment: Callable[[Play], bool], title: str, play: Play
) -> None:
    workflow = play.workflow
    text = workflow.directory / "clean-up.sub"
    workflow.write({text.name: f"seconds = {_CLEAN_UP_SECONDS}\n{text.read_text()}"})
    play.begin()
    workflow.wait_task()
    play.stage.service.control(fail="fatal")
    workflow.pool.wait_for(lambda: moment(play), "the moment", _END_SECONDS, _LOOK_SECONDS)
    play.say(f"SIGKILL of {title}")
    victim(play)
    play.fact("exit code of the DAG", 1, workflow.wait_end(_END_SECONDS))
    _is_over(play)
    play.say("the DAG is submitted again")
    play.stage.service.repair()
    workflow.submit()
    play.fact("exit code of the DAG", 0, workflow.wait_end(_END_SECONDS))
    play.fact("submissions, each stage once more", 3, play.tally()["submit"])


def _is_over(play: Play) -> None:
    """Wait until nothing happens any more, and compare."""
    workflow = play.workflow
    workflow.wait_for(lambda: not play.stage.pool.jobs(), "an empty queue", _END_SECONDS)
    time.sleep(_QUIET_SECONDS)
    play.fact("jobs in the queue", 0, len(play.stage.pool.jobs()))
    play.fact("submissions of the transfer", 1, play.tally()["submit"])
    play.fact("jobs of the clean-up that ran", 1, len(workflow.jobs_started("clean-up")))
    play.fact("clean-ups done", 1, workflow.cleaned_up("done"))
    for node, outcome in (("stage-in", "failed"), ("clean-up", "complete")):
        play.fact(f"outcome of {node}", outcome, (workflow.subjob(node) or {}).get("outcome"))


def dying_watchers(play: Play) -> None:
    """Watchers are killed outright again and again while a person has to log in; nothing fails."""
    workflow, service = play.workflow, play.stage.service
    play.begin()
    workflow.wait_task()
    service.control(credential="token")
    workflow.wait_for(lambda: workflow.record("stage-in").get("action"), "the action")
    for number in range(1, DEATHS + 1):
        workflow.wait_turned_away(1)
        killed = workflow.wait_for(workflow.kill_watchers, "a watcher to kill")
        play.say(f"SIGKILL of the watcher, {number} of {DEATHS} ({killed} processes)")
    service.control(credential="ok", paused=False)
    play.fact("exit code of the DAG", 0, workflow.wait_end(_END_SECONDS))
    play.fact("submissions", 2, play.tally()["submit"])
    play.fact("notices", 1, workflow.notice_count())


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
