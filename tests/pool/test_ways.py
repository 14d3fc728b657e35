"""Every documented way beside every other on one site: each job ends well under one subjob.

The site has all that a site can have: hooks, agent and Job Router on the access point, hooks on the
execution points, and in the second half its wrapper in front of every job. All jobs are submitted
at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import tenacity
from tests.pool.dag_instrumented import Instrumented
from tests.pool.lab import Lab, write_for_job
from tests.pool.routing import router_pids
from tests.pool.test_installed_site import InstalledSite
from tests.pool.test_submit import Desk

PLAN = """\
[[phase]]
name = "fetch"
run = ["/bin/sh", "-c", "echo fetched"]
restart = "redo"
[[phase]]
name = "compute"
run = ["./run.sh"]
"""
RUN = "#!/bin/sh\necho ran\n"
_COMMON = """\
should_transfer_files = YES
request_cpus = 1
request_memory = 32
request_disk = 1
output = out
error = err
log = log
"""
#: Of a DAG's node that knows nothing of htlease.
_PLAIN = f"executable = run.sh\n{_COMMON}queue\n"

#: Way -> executable, lines, files beside run.sh. `WF` stands for the workflow, `URL` for the server.
WAYS: dict[str, tuple[str, list[str], list[str]]] = {
    "two-lines": (
        "htlease-ep.pyz",
        ["arguments = run --server URL --plan plan.toml"],
        ["htlease.token", "plan.toml", "run.sh"],
    ),
    "two-lines-no-plan": (
        "htlease-ep.pyz",
        ["arguments = run --server URL -- ./run.sh"],
        ["htlease.token", "run.sh"],
    ),
    "two-lines-key": (
        "htlease-ep.pyz",
        ["arguments = run --server URL --key WF/own -- ./run.sh"],
        ["htlease.token", "run.sh"],
    ),
    "two-lines-key-in-ad": (
        "htlease-ep.pyz",
        ["arguments = run --server URL -- ./run.sh", '+HTLeaseKey = "WF/own"'],
        ["htlease.token", "run.sh"],
    ),
    "two-lines-key-in-environment": (
        "htlease-ep.pyz",
        ["arguments = run -- ./run.sh", 'environment = "HTLEASE_KEY=WF/own HTLEASE_URL=URL"'],
        ["htlease.token", "run.sh"],
    ),
    "two-lines-without-token": (
        "htlease-ep.pyz",
        ["arguments = run --server URL -- ./run.sh"],
        ["run.sh"],
    ),
    "token-in-a-folder": (
        "htlease-ep.pyz",
        ["arguments = run --server URL -- ./run.sh"],
        ["brought/", "run.sh"],
    ),
    "plain": ("run.sh", [], []),
    "plain-key": ("run.sh", ['+HTLeaseKey = "WF/own"'], []),
    "plain-token": ("run.sh", [], ["htlease.token"]),
    "plan-for-the-sites-wrapper": ("run.sh", ['+HTLeasePlan = "plan.toml"'], ["plan.toml"]),
}
#: What makes the Job Router take a job, and nobody else.
_ROUTED = ['+RouteTo = "here"', "requirements = false"]
#: Each also as a job that the Job Router runs; its copy is the same subjob.
WAYS |= {
    f"{way}-routed": (executable, [*lines, *_ROUTED], files)
    for way, (executable, lines, files) in WAYS.items()
}
#: Ways whose subjob is not of the workflow that the user chose, but of the access point's stamp.
_STAMPED = ("two-lines-without-token", "plain", "plan-for-the-sites-wrapper")
_ROUTER = """
DAEMON_LIST = $(DAEMON_LIST) JOB_ROUTER
JOB_ROUTER_POLLING_PERIOD = 2
JOB_ROUTER_MAX_JOB_MIRROR_UPDATE_LAG = 20
JOB_ROUTER_SOURCE_JOB_CONSTRAINT = target.JobUniverse =?= 5
JOB_ROUTER_ROUTE_NAMES = Here
JOB_ROUTER_ROUTE_Here @=end
  REQUIREMENTS RouteTo =?= "here"
  UNIVERSE vanilla
  SET Requirements true
@end
"""
#: A script of a DAG's user.
_NOTE = '#!/bin/sh\necho "$@" >> ran\n'


@dataclass
class Way:
    """One job, and the subjob that it is to be."""

    job: str | None
    key: str


@pytest.fixture(scope="module", params=[False, True], ids=["hooks", "hooks-and-wrapper"])
def site(lab: Lab, request: pytest.FixtureRequest) -> Iterator[InstalledSite]:
    site = InstalledSite(lab)
    lab.pool.configure("ap", "router", _ROUTER)
    site.install(wraps_jobs=request.param, has_router=True)
    lab.wait_for(lambda: router_pids(lab), "the Job Router to run", 60)
    yield site
    lab.pool.configure("ap", "router", None)
    site.uninstall()
    shutil.rmtree(site.directory)


def submit(lab: Lab, way: str, run: str) -> Way:
    executable, lines, inputs = WAYS[way]
    workflow = f"{run}-{way}"
    directory = lab.pool.job_directory(workflow)
    (directory / "brought").mkdir()
    write_for_job(directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    for name, content, mode in (
        ("plan.toml", PLAN, 0o644),
        ("run.sh", RUN, 0o755),
        ("htlease.token", lab.token(workflow), 0o600),
        ("brought/htlease.token", lab.token(workflow), 0o644),
    ):
        write_for_job(directory / name, content.encode(), mode)
    own = [line.replace("WF", workflow).replace("URL", lab.server.url) for line in lines]
    transfer = [f"transfer_input_files = {', '.join(inputs)}"] if inputs else []
    text = "\n".join([f"executable = {executable}", *own, *transfer, _COMMON, "queue", ""])
    job = f"{lab.pool.submit(text, cwd=directory)}.0"
    if way.removesuffix("-routed") in _STAMPED:
        return Way(job, str(lab.pool.job_ad(job)["HTLeaseKey"]))
    is_named = any("WF/own" in line for line in lines)
    return Way(job, f"{workflow}/{'own' if is_named else job}")


def desk_of(lab: Lab, run: str) -> Desk:
    desk = Desk(lab, lab.pool.job_directory(f"{run}-submit"))
    write_for_job(desk.directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    desk.write("admin.token", lab.server.admin_token, 0o600)
    desk.write("run.sh", RUN, 0o755)
    desk.write("plan.toml", PLAN)
    desk.write("a.sub", f"executable = run.sh\n{_COMMON}queue\n")
    lines = "\n".join(_ROUTED)
    desk.write("routed.sub", f"executable = run.sh\n{_COMMON}{lines}\nqueue\n")
    key = f'+HTLeaseKey = "{run}-submit-key/own"'
    desk.write("key.sub", f"executable = run.sh\n{_COMMON}{key}\nqueue\n")
    # Two jobs must not share files.
    each = _COMMON.replace("= out", "= out.$(Process)").replace("= err", "= err.$(Process)")
    desk.write("two.sub", f"executable = run.sh\n{each}max_retries = 1\nqueue 2\n")
    library = desk.directory / "lib"
    library.mkdir()
    for package in (click, tenacity):
        place = Path(str(package.__file__)).parent
        (library / place.name).symlink_to(place)
    return desk


def submitted(desk: Desk, run: str) -> Iterator[tuple[str, Way]]:
    """Yield what `htlease submit` queued, in each of its ways."""
    for name, file, options in (
        ("submit", "a.sub", ()),
        ("submit-plan", "a.sub", ("--plan", "plan.toml")),
        ("submit-two", "two.sub", ()),
        ("submit-key", "key.sub", ()),
        ("submit-routed", "routed.sub", ()),
    ):
        for job in desk.submit(file, "--workflow", f"{run}-{name}", *options):
            number = str(job["global_job_id"]).split("#")[-2]
            yield f"{name} {number}", Way(number, str(job["subjob"]))


def dag_of(lab: Lab, run: str) -> Instrumented:
    """Submit a DAG of the wrapper's jobs and of plain ones, without and with scripts of its own."""
    nodes = [
        f"JOB {node} {file}.sub" for node, file in zip("ABCD", ["job", "plain"] * 2, strict=True)
    ]
    for node in "CD":
        nodes += [f"SCRIPT PRE {node} note.sh pre $JOB"]
        nodes += [f"SCRIPT POST {node} note.sh post $JOB $RETURN"]
    dag = Instrumented(lab, run, nodes, files={"plain.sub": _PLAIN, "note.sh": _NOTE})
    dag.write("run.sh", RUN, 0o755)
    dag.submit()
    return dag


def workflows(lab: Lab) -> set[str]:
    # A page of the default length is full after some modules of other tests.
    return {
        entry["workflow"] for entry in lab.server.ask("GET", "workflows?limit=1000")["workflows"]
    }


def test_each_way_ends_well_under_the_subjob_that_its_user_chose(
    lab: Lab, site: InstalledSite, request: pytest.FixtureRequest
) -> None:
    run = "ways-wrapped" if "wrapper" in request.node.name.partition("[")[2] else "ways-hooks"
    before = workflows(lab)
    ways = {way: submit(lab, way, run) for way in WAYS}
    ways.update(submitted(desk_of(lab, run), run))
    dag = dag_of(lab, run)
    ways |= {f"dag-{node}": Way(None, dag.key(node)) for node in "ABCD"}

    def ended(way: Way) -> bool:
        return way.job is None or lab.pool.job_ad(way.job)["JobStatus"] in (3, 4, 5)

    lab.wait_for(lambda: all(map(ended, ways.values())), "all jobs to end", 240)
    assert dag.wait(240) == 0, dag.explain()
    assert sorted(dag.ran) == ["post C 0", "post D 0", "pre C", "pre D"]
    outcomes = wait_outcomes(lab, ways)
    wrong: dict[str, Any] = {}
    for name, way in ways.items():
        ad = lab.pool.job_ad(way.job) if way.job else {"JobStatus": 4, "ExitCode": 0}
        if (ad["JobStatus"], ad.get("ExitCode")) != (4, 0):
            wrong[name] = ad.get("HoldReason") or ad.get("ExitCode")
        elif outcomes[name] != ("complete", 1):
            told = lab.server.history(way.key) if outcomes[name][1] else []
            wrong[name] = outcomes[name], [(e["event"], e.get("reason")) for e in told]
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    wanted = {way.key.split("/")[0] for way in ways.values()}
    # Nobody can know of this token before the input is there; the stamped subjob was given up.
    for late in ("token-in-a-folder", "token-in-a-folder-routed"):
        stamped = str(lab.pool.job_ad(str(ways[late].job))["HTLeaseKey"])
        wanted.add(stamped.split("/")[0])
    assert workflows(lab) - before == wanted


def wait_outcomes(lab: Lab, ways: dict[str, Way]) -> dict[str, tuple[str, int]]:
    """Return state and number of attempts of each subjob, once all are complete or it is late."""
    found: dict[str, tuple[str, int]] = {}

    def are_complete() -> bool:
        known = workflows(lab)
        for name, way in ways.items():
            workflow, subjob = way.key.split("/")
            listed = (
                lab.server.ask("GET", f"workflows/{workflow}?limit=1000")["subjobs"]
                if workflow in known
                else []
            )
            if [entry["subjob"] for entry in listed if entry["subjob"] == subjob]:
                document = lab.server.subjob(way.key)
                jobs = [one for one in document["attempts"] if one["kind"] == "job"]
                found[name] = str(document["status"]), len(jobs)
            else:
                found[name] = "not known", 0
        return all(status == "complete" for status, _ in found.values())

    try:
        lab.wait_for(are_complete, "all subjobs to be complete", 90)
    except Exception:  # the test says which
        pass
    return found
