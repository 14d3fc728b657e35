"""Jobs in containers: the wrapper within, the site's wrapper outside, hooks, and all together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.pool.containers import ContainerSite
from tests.pool.hooked import HookedSite, wait_fence
from tests.pool.lab import Lab, TestJob
from tests.pool.test_ways import desk_of

#: Says where it runs and saves details, by the file and by the wrapper's own command.
RUN = """\
#!/bin/sh
read image < /image-name
echo "$image $HTLEASE_PHASE $HTLEASE_ATTEMPT_NUMBER $PWD"
echo saved > "$HTLEASE_DETAILS.new" && mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"
test "$image" = bare || "$HTLEASE" details /image-name || exit 7
exit 5
"""
PLAN = """\
[[phase]]
name = "fetch"
run = ["cat", "/image-name"]
restart = "once"
[[phase]]
name = "compute"
run = ["./run.sh", "a b"]
"""
FILES = {"run.sh": RUN, "plan.toml": PLAN}
RUNTIMES = ("apptainer", "docker")


@pytest.fixture(scope="module")
def containers(lab: Lab) -> Iterator[ContainerSite]:
    site = ContainerSite(lab)
    site.install()
    yield site
    site.uninstall()


@pytest.fixture(scope="module")
def hooked(lab: Lab, containers: ContainerSite) -> Iterator[HookedSite]:
    site = HookedSite(lab)
    yield site
    site.remove()


def ended(job: TestJob) -> tuple[Any, Any, list[str]]:
    """Return how a job ended, for HTCondor and on record, and what it wrote."""
    ad = job.wait_gone(240)  # a schedd may try a startd of before first
    out = (job.directory / "out").read_text().splitlines()
    return ad.get("ExitCode"), job.subjob()["exit_code"] if job.is_known() else None, out


def entered(job: TestJob) -> list[str]:
    return [event["phase"] for event in job.history() if event["event"] == "phase-entered"]


def test_a_wrapper_within_the_image(lab: Lab, containers: ContainerSite) -> None:
    jobs = {}
    for runtime in RUNTIMES:
        for image, arguments in (
            ("python", "--plan plan.toml"),
            ("python", "-- ./run.sh"),
            ("bare", "-- ./run.sh"),
        ):
            lines = containers.runtime(runtime, image)
            lines += ["executable = htlease-ep.pyz"]
            lines += [f"arguments = run --server {lab.server.url} {arguments}"]
            jobs[runtime, image, arguments] = containers.submit("within", lines, FILES, True)
    for (_, image, arguments), job in jobs.items():
        status, recorded, out = ended(job)
        assert status == 5, job.explain()
        if image == "bare":
            assert not job.is_known()
            assert "there is no Python" in (job.directory / "err").read_text()
        elif "--plan" in arguments:
            assert (recorded, entered(job)) == (5, ["fetch", "compute"])
            assert out[0] == "python" and out[1].startswith("python compute 1 "), out
        else:
            assert recorded == 5 and out[0].startswith("python run 1 "), out
            assert job.subjob()["details_phase"] == "run"


def test_a_sites_wrapper_outside_of_the_image(
    lab: Lab, containers: ContainerSite, hooked: HookedSite
) -> None:
    """Apptainer's: HTCondor puts no wrapper in front of docker, whose jobs the hooks look after."""
    hooked.configure(HTLEASE_WRAP_JOBS="True")
    target = "container_target_dir = /srv"
    kinds = {
        "image": ("python", "executable = run.sh"),
        "target": ("python", f"executable = run.sh\n{target}"),
        "bare": ("bare", "executable = run.sh"),
        "plan": ("python", 'executable = run.sh\n+HTLeasePlan = "plan.toml"'),
        "plan-target": ("bare", f'executable = run.sh\n+HTLeasePlan = "plan.toml"\n{target}'),
        "of-the-image": ("python", "executable = /usr/bin/false\ntransfer_executable = false"),
    }
    jobs = {
        kind: containers.submit(kind, [*containers.runtime("apptainer", image), line], FILES)
        for kind, (image, line) in kinds.items()
    }
    wrong = {}
    for kind, job in jobs.items():
        image = kinds[kind][0]
        status, recorded, out = ended(job)
        if kind == "of-the-image":
            expected: Any = (1, 1, ["run"], [])
        else:
            where = "/srv" if "target" in kind else ""
            phases = ["fetch", "compute"] if "plan" in kind else ["run"]
            said = [*([image] if "plan" in kind else []), f"{image} {phases[-1]} 1 {where}"]
            expected = (5, 5, phases, said)
            # Where the scratch directory is nested (25.14), it is so within.
            out = [
                (line if where else line.partition("/")[0]).removesuffix("/scratch") for line in out
            ]
        if (status, recorded, entered(job), out) != expected:
            wrong[kind] = (status, recorded, entered(job), out, job.explain())
        elif kind == "image":
            assert job.subjob()["details_phase"] == "run"
    assert not wrong, "\n".join(f"{kind}: {what}" for kind, what in wrong.items())


def test_hooks_look_after_what_docker_runs(
    lab: Lab, containers: ContainerSite, hooked: HookedSite
) -> None:
    hooked.configure()
    wait = "#!/bin/sh\ntrap 'exit 3' TERM\ntest $HTLEASE_ATTEMPT_NUMBER -gt 1 && exit 0\n"
    files = {"run.sh": wait + "while :; do sleep 0.2; done\n"}
    lines = [*containers.runtime("docker", "bare"), "executable = run.sh"]
    evicted, lost = (containers.submit(name, lines, files) for name in ("evicted", "lost"))
    fails = containers.submit("fails", lines, {"run.sh": "#!/bin/sh\nexit 4\n"})
    for job in (evicted, lost):
        wait_fence(job, 1)
    lab.pool.vacate(evicted.job)
    # Docker's processes are no children of HTCondor's: the hook has to find them.
    lab.server.command(lost.key, "cancel", reason="not needed any more")
    ad = lost.wait_gone()
    assert (ad["ExitCode"], ad["ExitBySignal"]) == (3, False), lost.explain()
    assert evicted.wait_gone(120)["ExitCode"] == 0
    assert [grant["fence"] for grant in evicted.grants()] == [1, 2], evicted.explain()
    assert fails.wait_gone()["ExitCode"] == 4
    if any(event["event"] == "attempt-exited" for event in fails.history()):
        assert fails.subjob()["exit_code"] == 4, fails.explain()


def test_submitted_jobs_run_in_their_images(lab: Lab, containers: ContainerSite) -> None:
    desk = desk_of(lab, "contained")
    desk.write("run.sh", RUN, 0o755)
    desk.write("plan.toml", PLAN)
    common = "should_transfer_files = YES\nrequest_cpus = 1\nrequest_memory = 64\nrequest_disk = 1"
    jobs = {}
    for runtime in RUNTIMES:
        lines = [*containers.runtime(runtime, "python"), "executable = run.sh", common]
        lines += [f"output = {runtime}.out", f"error = {runtime}.err", "queue", ""]
        desk.write(f"{runtime}.sub", "\n".join(lines))
        for options in ((), ("--plan", "plan.toml")):
            workflow = f"contained-{runtime}-{len(options)}"
            (job,) = desk.submit(f"{runtime}.sub", "--workflow", workflow, *options)
            jobs[runtime, len(options)] = str(job["subjob"])
    desk.wait_ended(list(jobs.values()))
    for (runtime, has_plan), key in jobs.items():
        events = lab.server.events(key, "phase-entered")
        expected = ["fetch", "compute"] if has_plan else ["run"]
        assert [event["phase"] for event in events] == expected, (runtime, key)
        assert desk.subjob(key)["exit_code"] == 5, (runtime, key, lab.server.history(key))
