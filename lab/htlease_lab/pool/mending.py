"""Brings a pool that was broken on purpose back to work, jobs aside. Runs on the host."""

from __future__ import annotations

import signal

from . import network
from .errors import PoolError
from .network import EXECUTION_POINTS
from .pool import Pool

#: What has to run, and where, for jobs to be taken and started.
_DAEMONS = (
    ("condor_collector", "ap"),
    ("condor_negotiator", "ap"),
    ("condor_schedd", "ap"),
    *(("condor_startd", ep) for ep in EXECUTION_POINTS),
)
_ANSWER_SECONDS = 60.0
_REMOVAL_SECONDS = 30.0


def faults(pool: Pool) -> list[str]:
    """Return what a look at processes and cables shows to be broken; no daemon is asked.

    A daemon that its master is about to start again is in the list as well.
    """
    if not pool.is_up():
        return ["the pool is not up"]
    running = pool.processes()
    found = [f"{p.program} {p.pid} is stopped" for p in running if p.frozen]
    found += [f"{ep} is cut off" for ep in EXECUTION_POINTS if not _is_plugged(pool, ep)]
    names = [(p.program, p.host) for p in running if p.program.startswith("condor_")]
    found += [f"no {name} on {host}" for name, host in _DAEMONS if (name, host) not in names]
    return found


def mend(pool: Pool, answer_seconds: float = _ANSWER_SECONDS) -> list[str]:
    """Make the pool take jobs again, and return what had to be done for it.

    What is frozen goes on, cables are plugged in, and a pool whose daemons do not all answer in
    time is started again with its queue. Waiting for a master to replace a daemon is not told.
    Raises PoolError if the pool does not work even then.
    """
    if not pool.is_up():
        return [f"{_start_again(pool)}: not all of its masters were alive"]
    done = []
    for process in pool.processes():
        if process.frozen and process.send(signal.SIGCONT):
            done.append(f"{process.program} {process.pid} was stopped and goes on")
    for ep in EXECUTION_POINTS:
        if not _is_plugged(pool, ep):
            pool.heal_network(ep)
            done.append(f"{ep} was cut off and is plugged in")
    try:
        pool.wait_for(lambda: answers(pool), "all daemons to answer", answer_seconds)
    except PoolError as silent:
        done.append(f"{_start_again(pool)}: {silent}")
    return done


def answers(pool: Pool) -> bool:
    """Tell whether every daemon runs, the schedd answers and both startds have advertised."""
    if faults(pool) or pool.run(["condor_q"], check=False).returncode:
        return False
    return {pool.ep_host(ep) for ep in EXECUTION_POINTS} <= pool.advertised()


def clear_queue(pool: Pool, removal_seconds: float = _REMOVAL_SECONDS) -> list[str]:
    """Remove all jobs, forcibly those that do not go, and return the IDs of what there was."""
    left = _queued(pool)
    for command in (["condor_rm", "-all"], ["condor_rm", "-all", "-forcex"]):
        if not _queued(pool):
            return left
        pool.run(command, as_root=True, check=False)
        try:
            pool.wait_for(lambda: not _queued(pool), "the queue to be empty", removal_seconds)
        except PoolError:
            continue
    if still := _queued(pool):
        raise PoolError(f"Jobs {', '.join(still)} of pool {pool.name} cannot be removed.")
    return left


def _start_again(pool: Pool) -> str:
    """Start all daemons anew, with the old queue where the pool's first process is alive."""
    try:
        pool.power_off()
        pool.power_on()
    except PoolError:
        pool.down()
        pool.up()
        return f"pool {pool.name} was made anew, without its queue"
    return f"pool {pool.name} was started again"


def _queued(pool: Pool) -> list[str]:
    return [f"{ad['ClusterId']}.{ad['ProcId']}" for ad in pool.jobs()]


def _is_plugged(pool: Pool, ep: str) -> bool:
    return network.is_plugged(pool.network(), ep)
