"""The Job Router's hooks, on the access point: a routed copy keeps its source's identity.

The router waits for its hooks without a limit, and a hook that fails or prints an ad that cannot
be read blocks its job for ever. So these end with status 0 whatever happens, TRANSLATE_JOB with a
usable ad; what the server then does not hear from a hook it learns from the copy's wrapper or
from the agent's look at the queue. Source: `JobRouterHookMgr.cpp`; measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from htlease.condor.job_ad import Ad, Literal
from htlease_hooks.hook_reply import say
from htlease_hooks.router import ads
from htlease_hooks.router.agent_client import Agent, NoAgent

_INPUT_MAX_BYTES = 64 << 20


def main(name: str, arguments: Sequence[str]) -> int:
    """Run the hook on stdin and print its answer; always returns 0."""
    given = b""
    answer = b""
    try:
        given = sys.stdin.buffer.read(_INPUT_MAX_BYTES)
        answer = HOOKS[name](given, Agent.beside(Path(sys.argv[0])))
    except NoAgent as error:
        say(f"{name}: {error}")
    except Exception as error:
        # The type alone: the text may quote somebody's job.
        say(f"{name}: internal error, please report it: {type(error).__name__}")
        answer = ads.split(given)[1] if name == "router_translate_job" else b""
    try:
        while answer:
            answer = answer[os.write(1, answer) :]
    except OSError as error:
        say(f"{name}: the router does not listen: {error.strerror}")
    return 0


def translate_job(given: bytes, agent: Agent) -> bytes:
    """Return the source's ad with the key, and with the generation of the copy it is to become."""
    ad_text = ads.split(given)[1]
    source = ads.read(ad_text)
    key, job = ads.key_of(source), ads.job_of(source)
    if ads.is_opted_out(source) or key is None:
        return ad_text
    stamped: dict[str, Literal] = {ads.SOURCE: source.text("GlobalJobId") or ""}
    if source.text(ads.KEY) is None and ads.KEY.lower() not in source.attributes:
        stamped[ads.KEY] = key
    if (stamp := ads.stamp_of(source, key)) is not None:
        stamped[ads.STAMP] = stamp
    try:
        named = {"job": job, "key": key, "source": source.text("GlobalJobId")}
        generation = agent.ask("enroll", named).get("epoch")
        if isinstance(generation, int):
            stamped[ads.GENERATION] = generation
    except NoAgent as error:
        say(f"job {job} is routed without a generation: {error}")
    return ads.with_attributes(ad_text, stamped)


def update_job_info(given: bytes, agent: Agent) -> bytes:
    """Make the copy's IDs known to the server, once, and return the mark that says so."""
    routed = ads.read(given)
    links = ads.links_of(routed)
    if links is None or ads.is_opted_out(routed) or routed.text(ads.RECORDED) == links.mark:
        return b""
    if agent.ask("record", _named(routed, links)).get("is_to_come"):
        return b""  # which subjob it is to be, only the token tells that it brings along
    return ads.attribute_lines({ads.RECORDED: links.mark})


def job_finalize(given: bytes, agent: Agent) -> bytes:
    """Let the server know that the copy is done, and return what the source's ad shows of it."""
    routed_text = ads.split(given)[1]
    return _shown(_report(routed_text, agent, "finalize"))


def job_cleanup(given: bytes, agent: Agent) -> bytes:
    """Let the server know that the router is done with the copy, or withdraws it."""
    _report(given, agent, "cleanup")
    return b""


def _report(routed_text: bytes, agent: Agent, step: str) -> Mapping[str, Literal]:
    routed = ads.read(routed_text)
    links = ads.links_of(routed)
    if links is None or ads.is_opted_out(routed):
        return {}
    # A sandboxed copy's outputs come back only after JOB_FINALIZE. Source: JobRouter.cpp,
    # FinishFinalizeJob; VanillaToGrid.cpp takes the source's own StageIn times away.
    is_spooled = routed.count("StageInFinish") is not None
    return agent.ask(step, {**_named(routed, links), "is_spooled": is_spooled})


def _named(routed: Ad, links: ads.Links) -> dict[str, Literal]:
    named: dict[str, Literal] = {
        "job": links.source_job,
        "source": routed.text(ads.SOURCE) or "",
        "routed_job": links.job,
        "global_job_id": links.global_job_id,
        "grid_job_id": links.grid_job_id,
    }
    key = routed.text(ads.KEY)
    return named if key is None else {**named, "key": key}


def _shown(known: Mapping[str, Literal]) -> bytes:
    names = {"state": ads.STATE, "attempt": ads.ATTEMPT, "fence": ads.FENCE}
    return ads.attribute_lines(
        {name: known[field] for field, name in names.items() if known.get(field) is not None}
    )


HOOKS: Mapping[str, Callable[[bytes, Agent], bytes]] = {
    "router_translate_job": translate_job,
    "router_update_job_info": update_job_info,
    "router_job_finalize": job_finalize,
    "router_job_cleanup": job_cleanup,
}
