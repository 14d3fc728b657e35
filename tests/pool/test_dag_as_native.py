"""An ordinary DAG through `htlease dag instrument` does what it does without, and has leases.

Each runs both ways, side by side. Its submit files say nothing of htlease and are not touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.pool.dag import install
from tests.pool.lab import Lab
from tests.pool.test_submit import Desk, desk_in

from htlease_lab.pool import PoolError

#: Tells how it was called; what differs from start to start is left out.
SHOW = r"""#!/bin/sh
dir=$_CONDOR_SCRATCH_DIR
printf '<%s>' "${0#"$dir"/}" "$@"; echo
echo "in $(pwd | sed "s|$dir|SCRATCH|")"
cat input.txt other.txt 2> /dev/null
env | grep -v '^_CONDOR\|^HTLEASE\|^PWD=\|^OLDPWD=\|^_=\|_PID=' | sed "s|$dir|SCRATCH|g" | sort
"""
COMMON = """
request_cpus = 1
request_memory = 32
request_disk = 1
output = out.$(JOB).$(Process)
error = err.$(JOB).$(Process)
log = log
"""
SENT = "should_transfer_files = YES\n" + COMMON
FILES = {
    "show.sh": SHOW,
    "again.sh": '#!/bin/sh\necho "try $1"; [ "$1" = 1 ]\n',
    "input.txt": "input\n",
    "other.txt": "other\n",
    "items.txt": "a\nb c\n",
    "place/show.sh": SHOW.replace("printf", "echo of the place; printf"),
    "place/input.txt": "input of the place\n",
    "plain.sub": SENT + "executable = show.sh\narguments = \"a 'b  c' ''it'' ''\"\nqueue\n",
    "many.sub": SENT + "executable = show.sh\narguments = $(Process)\nqueue 3\n",
    "items.sub": SENT + "executable = show.sh\narguments = [$(x)]\nqueue x from items.txt\n",
    "macro.sub": SENT + "executable = $(program)\narguments = $(X) $(JOB)\n"
    "environment = \"A='b c' D=$(X)\"\ntransfer_input_files = input.txt\nqueue\n",
    "files.sub": SENT + "executable = show.sh\nqueue\n",
    "alias.sub": SENT + "Cmd = show.sh\nargs = a b\nTransferInputFiles = input.txt\nqueue\n",
    "own.sub": SENT + "executable = show.sh\ntransfer_input_files = input.txt\n"
    "transfer_input_files = $(transfer_input_files), other.txt\nqueue\n",
    "again.sub": SENT + "executable = again.sh\narguments = $(RETRY)\nqueue\n",
    "local.sub": COMMON + "universe = local\nexecutable = show.sh\narguments = a\nqueue\n",
    "stays.sub": SENT + "executable = /bin/echo\ntransfer_executable = false\n"
    "arguments = a b\nqueue\n",
    "hold.sub": SENT + "executable = show.sh\nOnExitHold = false\nmax_retries = 2\nqueue\n",
    "late.sub": SENT
    + "executable = show.sh\narguments = $(Process)\nmax_materialize = 1\nqueue 2\n",
    "forced.sub": SENT + 'executable = show.sh\n+TransferInput = "input.txt"\nqueue\n',
    "splice.dag": "JOB A plain.sub\nJOB B files.sub\nPARENT A CHILD B\n",
}
INLINE = SENT.replace("\n", "\n  ") + "executable = show.sh\n"
#: Node -> its line, and what else belongs to it.
NODES = {
    "A": "JOB A plain.sub",
    "Many": "JOB Many many.sub",
    "Items": "JOB Items items.sub",
    "Macro": 'JOB Macro macro.sub\nVARS Macro X="xy" program="show.sh"',
    "Files": 'JOB Files files.sub\nVARS Files transfer_input_files="input.txt"',
    "After": 'JOB After alias.sub\nVARS After APPEND transfer_input_files="other.txt"',
    "Alias": "JOB Alias alias.sub",
    "Own": "JOB Own own.sub",
    "Place": "JOB Place own.sub DIR place",
    "Again": "JOB Again again.sub\nRETRY Again 2",
    "Local": "JOB Local local.sub",
    "Stays": "JOB Stays stays.sub",
    "Hold": "JOB Hold hold.sub",
    "Late": "JOB Late late.sub",
    "Inline": "JOB Inline {\n" + INLINE + "  arguments = a\n}",
    "Shared": "SUBMIT-DESCRIPTION common {\n" + INLINE + "  transfer_input_files = input.txt\n}\n"
    'JOB Shared common\nVARS Shared arguments="first"',
    "Shared2": 'JOB Shared2 common\nVARS Shared2 arguments="second"',
    "Retried": "JOB Retried {\n"
    + INLINE.replace("show", "again")
    + "  transfer_input_files = input.txt\n  arguments = $(RETRY)\n}\nRETRY Retried 2",
    "Forced": "JOB Forced forced.sub",
    "Noop": "JOB Noop plain.sub NOOP",
    "Splice": "SPLICE Splice splice.dag",
    "Final": "FINAL Final plain.sub",
}
JOBS = {"Many": 3, "Items": 2, "Late": 2}
NOT_WRAPPED = {"Forced", "Noop"}
#: It says on standard error that a second attempt goes on.
_OF_THE_WRAPPER = re.compile(r"^htlease: .* continues after an earlier attempt.*\n", re.MULTILINE)
#: By condor_submit 23.9 does not take descriptions in the DAG.
DIRECT_ONLY = {"Inline", "Shared", "Shared2", "Retried"}
CHILDREN = "PARENT A CHILD Many Items Splice"


@dataclass
class Run:
    """A DAG in a directory of its own."""

    desk: Desk
    cluster: str = ""

    @property
    def place(self) -> Path:
        return self.desk.directory

    def prepare(self, nodes: Iterable[str], config: str) -> None:
        (self.place / "place").mkdir()
        os.chown(self.place / "place", *_owner(self.place))
        lines = [*(NODES[node] for node in nodes), CHILDREN, "CONFIG my.config"]
        files = {**FILES, "place/own.sub": FILES["own.sub"], "my.config": config}
        files |= {"place/other.txt": "other of the place\n", "d.dag": "\n".join([*lines, ""])}
        for name, text in files.items():
            self.desk.write(name, text, 0o755 if name.endswith(".sh") else 0o644)

    def submit(self, *options: str) -> None:
        done = self.desk.lab.pool.run(["condor_submit_dag", *options, "d.dag"], cwd=self.place)
        found = re.search(r"submitted to cluster (\d+)", done.stdout)
        assert found, done.stdout
        self.cluster = found[1]

    def wait(self) -> int:
        pool = self.desk.lab.pool

        def ended() -> dict[str, Any] | None:
            try:
                ad = pool.job_ad(f"{self.cluster}.0")
            except PoolError:
                return None
            return ad if ad["JobStatus"] in (3, 4) else None

        try:
            ad = pool.wait_for(ended, f"DAG in {self.place} to end", 240, interval_seconds=1)
        except PoolError as error:
            shown = ("ClusterId", "DAGNodeName", "JobStatus", "HoldReason", "JobUniverse", "Cmd")
            queue = pool.run(["condor_q", "-allusers", "-af", *shown]).stdout
            raise AssertionError(f"{error}\n{queue}") from None
        assert ad is not None
        return int(ad.get("ExitCode", -1))

    def printed(self) -> dict[str, str]:
        """What each job wrote, and what it wrote to standard error."""
        found = {}
        for path in [*self.place.glob("out.*"), *self.place.glob("place/out.*")]:
            error = path.with_name(path.name.replace("out.", "err."))
            text = path.read_text() + _OF_THE_WRAPPER.sub("", error.read_text())
            found[path.name[4:]] = text.replace(str(self.place), "PLACE")
        return found


def _owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "by-condor-submit"])
def test_every_node_does_what_it_does_without_and_has_a_lease(lab: Lab, direct: bool) -> None:
    program = install(lab)
    nodes = [node for node in NODES if direct or node not in DIRECT_ONLY]
    config = f"DAGMAN_USE_DIRECT_SUBMIT = {direct}\n"
    native, ours = (Run(desk_in(lab, f"dag-{way}-{direct}".lower())) for way in ("native", "ours"))
    for run in (native, ours):
        run.prepare(nodes, config)
    before = {name: (ours.place / name).read_bytes() for name in FILES}
    done = ours.desk.htlease(
        *("dag", "instrument", "d.dag", "--script", str(program), "--defer", "2s"),
        *("--pyz", "htlease-ep.pyz"),
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "without the wrapper" in line]
    assert {line.split()[2] for line in said} == {"Forced"}, done.stderr
    workflow = re.search(r"is workflow (\S+)", done.stdout)
    assert workflow, done.stdout
    native.submit()
    ours.submit()
    assert native.wait() == 0, (native.place / "d.dag.dagman.out").read_text()[-9000:]
    assert ours.wait() == 0, (ours.place / "d.dag.dagman.out").read_text()[-9000:]
    assert {name: (ours.place / name).read_bytes() for name in FILES} == before
    assert native.printed() == ours.printed()
    assert len(native.printed()) == sum(JOBS.get(node, 1) for node in nodes)
    for node in [*nodes, "Splice+A", "Splice+B"]:
        if node == "Splice":
            continue
        for name in [f"{node}.{n}" for n in range(JOBS.get(node, 0))] or [node]:
            document = ours.desk.subjob(f"{workflow[1]}/{name}")
            assert document["status"] == "complete", document
            starts = [one for one in document["attempts"] if one["kind"] == "job"]
            wanted = 0 if node in NOT_WRAPPED else 2 if node in ("Again", "Retried") else 1
            assert len(starts) == wanted, (name, starts)


SLOW = """\
#!/bin/sh
grep -q '^NumJobStarts = 0' .job.ad && sleep 600
echo "start after $(sed -n 's/^NumJobStarts = //p' .job.ad)"
"""


def test_a_node_that_restarts_goes_on_and_a_rescue_dag_repeats_nothing(lab: Lab) -> None:
    program = install(lab)
    run = Run(desk_in(lab, "dag-restarts"))
    desk = run.desk
    scripts = {"a": "#!/bin/sh\necho a\n", "b": SLOW, "c": "#!/bin/sh\nexit 4\n"}
    for name, text in scripts.items():
        desk.write(f"{name}.sh", text, 0o755)
        desk.write(f"{name}.sub", f"executable = {name}.sh\n{SENT}queue\n")
    desk.write(
        "d.dag", "JOB A a.sub\nJOB B b.sub\nJOB C c.sub\nPARENT A CHILD B\nPARENT B CHILD C\n"
    )
    words = ("--script", str(program), "--defer", "2s", "--pyz", "htlease-ep.pyz")
    done = desk.htlease("dag", "instrument", "d.dag", *words, "--workflow", "dag-restarts")
    assert done.returncode == 0, done.stderr

    def subjob(node: str) -> dict[str, Any]:
        return desk.subjob(f"dag-restarts/{node}")

    def of_jobs(node: str) -> list[dict[str, Any]]:
        return [one for one in subjob(node)["attempts"] if one["kind"] == "job"]

    def b_runs() -> bool:
        announced = lab.server.ask("GET", "workflows/dag-restarts")["subjobs"]
        if "B" not in [one["subjob"] for one in announced]:
            return False
        return subjob("B")["status"] == "active" and bool(of_jobs("B"))

    run.submit()
    lab.wait_for(b_runs, "node B to run", 120)
    job = subjob("B")["submissions"][-1]["global_job_id"].split("#")[1]
    lab.pool.run(["condor_vacate_job", "-fast", job])
    assert run.wait() != 0
    assert (run.place / "out.B.0").read_text() == "start after 1\n"
    assert [subjob(node)["outcome"] for node in "ABC"] == ["complete", "complete", "failed"]
    assert [len(of_jobs(node)) for node in "ABC"] == [1, 2, 1]
    desk.write("c.sh", "#!/bin/sh\necho c\n", 0o755)
    run.submit()
    assert run.wait() == 0
    assert [len(of_jobs(node)) for node in "ABC"] == [1, 2, 2]
    assert subjob("C")["outcome"] == "complete"
