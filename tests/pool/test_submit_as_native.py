"""A submit file through `htlease submit` does what it does through `condor_submit`, plus a lease.

Each file is submitted both ways, side by side, and all of them wait together.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import pytest
from tests.pool.lab import Lab, write_for_job
from tests.pool.test_submit import Desk, desk_in

#: Tells how it was called; what differs from start to start is left out. `/bin/sh` alone is used
#: for what may run without a PATH.
SHOW = r"""#!/bin/sh
dir=$_CONDOR_SCRATCH_DIR
printf '<%s>' "${0#"$dir"/}" "$@"; echo
echo "in $(pwd | sed "s|$dir|SCRATCH|")"
cat input.txt other.txt 2> /dev/null
env | grep -v '^_CONDOR\|^HTLEASE\|^PWD=\|^OLDPWD=\|^_=\|_PID=' | sed "s|$dir|SCRATCH|g" | sort
cat
exit 3
"""
HERE = '#!/bin/sh\nmkdir work && cd work || exit 1\n. "$(dirname "$0")/library.sh"\n'

FILES = {
    "show.sh": SHOW,
    "my show.sh": SHOW,
    "show.LINUX.X86_64": SHOW,
    "sub/other.sh": SHOW,
    "runA/show.sh": "#!/bin/sh\necho the wrong one\n",
    "runA/input.txt": "input of A\n",
    "runB/input.txt": "input of B\n",
    "here.sh": HERE,
    "library.sh": "echo library; exit 4\n",
    "input.txt": "input\n",
    "other.txt": "other\n",
    "blank.txt": "a\nb\n\n",
    "hash.txt": "a\n#c\nb\n",
    "five.txt": "a\nb\nc\nd\ne\n",
    "items.sh": "#!/bin/sh\necho run >> items.ran\nprintf 'x\\ny\\n'\n",
    "75.sh": "#!/bin/sh\nexit 75\n",
    "count.sh": '#!/bin/sh\necho "$# $*"; exit 3\n',
    "bad/libz.so.1": "",
}

COMMON = """
request_cpus = 1
request_memory = 32
request_disk = 1
output = out.$(Cluster).$(Process)
error = err.$(Cluster).$(Process)
log = log
"""
SENT = "should_transfer_files = YES\n"

#: What is told by a name: the file, without what all of them have.
CASES = {
    "plain": SENT
    + "executable = show.sh\narguments = \"a 'b  c' ''it'' '' $(Process)\"\nqueue 2\n",
    "old-quoting": SENT + "executable = show.sh\narguments = a \\\"b\\\" 'c d'\nqueue\n",
    "args-alias": SENT + "executable = show.sh\nargs = a b\nqueue\n",
    "alias": SENT + "executable = show.sh\nTransferInputFiles = input.txt\nqueue\n",
    "plus-inputs": SENT + 'executable = show.sh\n+TransferInput = "input.txt"\nqueue\n',
    "inputs-of-an-expression": SENT
    + 'executable = show.sh\n+TransferInput = strcat("input", ".txt")\nqueue\n',
    "command-alias": SENT + "Cmd = show.sh\nqueue\n",
    "blank-items": SENT + "executable = show.sh\narguments = [$(x)]\nqueue x from blank.txt\n",
    "hash-items": SENT + "executable = show.sh\narguments = [$(x)]\nqueue x from hash.txt\n",
    "slice": SENT + "executable = show.sh\narguments = [$(x)]\nqueue x from [1:5:2] five.txt\n",
    "product": SENT
    + "executable = show.sh\narguments = $(x) $(Step) $(Row)\nqueue 2 x in (p, q)\n",
    "matching": SENT + "executable = show.sh\narguments = $(f)\nqueue f matching files *.txt\n",
    "initialdir": SENT + "executable = $(exe)\ninitialdir = $(dir)\n"
    "transfer_input_files = input.txt\nqueue exe,dir from (\n  show.sh, runA\n"
    "  sub/other.sh, runB\n)\n",
    "of-the-environment": SENT + "executable = $ENV(SHOW)\nqueue\n",
    "late": SENT + "executable = show.sh\narguments = $(Process)\nmax_materialize = 1\nqueue 3\n",
    "late-items": SENT + "executable = show.sh\narguments = [$(x)]\nmax_idle = 2\n"
    "queue x from (\n  a\n  #b\n\n  c\n)\n",
    "continued": SENT + "executable = show.sh\narguments = --list a,b \\\n   queue --flag\nqueue\n",
    "latin-1": SENT + "executable = show.sh\n# caf\xe9\narguments = caf\xe9\nqueue\n",
    "universe-macro": SENT + "U = vanilla\nuniverse = $(U)\nexecutable = show.sh\nqueue\n",
    "universe-number": SENT + "universe = 5\nexecutable = show.sh\nqueue\n",
    "macro-of-transfer": "S = YES\nshould_transfer_files = $(S)\nexecutable = show.sh\nqueue\n",
    "choice": SENT + "executable = $CHOICE(Process,show.sh,sub/other.sh)\nqueue 2\n",
    "blank-in-name": SENT + "executable = my show.sh\nqueue\n",
    "matched-name": SENT + "executable = show.$$(OpSys).$$(Arch)\narguments = $$(OpSys)\nqueue\n",
    "name-of-called": SENT + "executable = here.sh\ntransfer_input_files = library.sh\nqueue\n",
    "stays": SENT + "executable = /bin/echo\ntransfer_executable = False\narguments = a b\nqueue\n",
    "stays-in-sandbox": SENT + "executable = show.sh\ntransfer_executable = false\n"
    "transfer_input_files = show.sh\nqueue\n",
    "stays-forced": SENT + 'executable = /bin/echo\n+TransferExecutable = False\narguments = "a"\n'
    "queue\n",
    "environment": SENT + "executable = show.sh\nenvironment = \"A='b c' D=e\"\nqueue\n",
    "old-environment": SENT + "executable = show.sh\nenvironment = A=b c;D=e\nqueue\n",
    "standard-input": SENT + "executable = show.sh\ninput = input.txt\nqueue\n",
    "local": "universe = local\nexecutable = show.sh\narguments = a\nqueue\n",
    "retries": SENT + "executable = show.sh\nmax_retries = 1\nqueue\n",
    "success": SENT + "executable = show.sh\nmax_retries = 4\nsuccess_exit_code = 3\nqueue\n",
    "exit-alias": SENT + "executable = show.sh\nOnExitRemove = NumJobCompletions >= 2\nqueue\n",
    "held-at-exit": SENT + "executable = show.sh\non_exit_hold = ExitCode == 3\n"
    "on_exit_hold_subcode = 42\nqueue\n",
    "held-for-a-reason": SENT + "executable = show.sh\nOnExitHold = ExitCode == 3\n"
    'on_exit_hold_reason = "three"\nqueue\n',
    "own-75": SENT + "executable = 75.sh\nqueue\n",
    "search-path": SENT + 'executable = count.sh\nenvironment = "PATH=/opt/app/bin"\nqueue\n',
    "python-home": SENT + 'executable = show.sh\nenvironment = "PYTHONHOME=/opt/conda"\nqueue\n',
    "library-path": SENT + "executable = count.sh\ntransfer_input_files = bad\n"
    'environment = "LD_LIBRARY_PATH=./bad"\nqueue\n',
    "held": SENT + "executable = show.sh\nhold = true\nqueue 2\n",
    "noop": SENT + "executable = show.sh\nnoop_job = true\nqueue\n",
    "no-program": SENT + "executable = /bin/not-there\ntransfer_executable = false\nqueue\n",
    "included": SENT + "include : common.inc\nexecutable = show.sh\nqueue\n",
}
ONLY_23 = {
    "statements": SENT + "executable = show.sh\narguments = one\nqueue 2\narguments = two\n"
    "transfer_input_files = input.txt\nqueue\nexecutable = sub/other.sh\nqueue 2\n",
}
ONLY_25 = {
    # 23.9 takes the quotes for part of the names; here they are taken off there as well.
    "quoted-inputs": SENT + 'executable = show.sh\ntransfer_input_files = "input.txt, other.txt"\n'
    "queue\n",
    "shell": SENT + "shell = sh show.sh a; exit 7\ntransfer_input_files = show.sh\nqueue\n",
}


@dataclass
class Outcome:
    """What became of the jobs of one file, by cluster in order and process."""

    count: int
    jobs: dict[tuple[int, int], dict[str, Any]]


class Way:
    """One of the two ways to submit."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        for name, text in FILES.items():
            (desk.directory / name).parent.mkdir(exist_ok=True)
            desk.write(name, text, 0o755 if ".sh" in name or ".LINUX" in name else 0o644)
        desk.write("common.inc", "arguments = included\n")
        for folder in ("sub", "runA", "runB", "bad"):
            owner = desk.directory.stat()
            os.chown(desk.directory / folder, owner.st_uid, owner.st_gid)
        #: By case: the clusters, and how many jobs each is said to have.
        self.clusters: dict[str, dict[int, int]] = {}

    def submit(self, case: str, text: str) -> None:
        path = self.desk.directory / f"{case}.sub"
        write_for_job(path, (COMMON + text).encode("latin-1"))
        done = self._submit(path.name)
        assert done.returncode == 0, (case, done.stdout, done.stderr)
        found = re.findall(r"^(\d+) job\(s\) submitted to cluster (\d+)", done.stdout, re.MULTILINE)
        self.clusters[case] = {int(cluster): int(count) for count, cluster in found}

    def _submit(self, file: str) -> Any:
        raise NotImplementedError

    def ads(self) -> list[dict[str, Any]]:
        attributes = "ClusterId,ProcId,JobStatus,ExitCode,HoldReason,HoldReasonCode,"
        attributes += "HoldReasonSubCode,NumJobCompletions,HTLeaseKey,LastHoldReasonCode"
        constraint = f'substr(Iwd, 0, {len(str(self.desk.directory))}) == "{self.desk.directory}"'
        ads: list[dict[str, Any]] = []
        for program in ("condor_q", "condor_history"):
            done = self.desk.lab.pool.run(
                [program, "-constraint", constraint, "-json", "-attributes", attributes]
            )
            ads += json.loads(done.stdout or "[]")
        return ads

    def is_done(self) -> bool:
        wanted = sum(sum(counts.values()) for counts in self.clusters.values())
        ads = self.ads()
        return len(ads) == wanted and all(ad["JobStatus"] in (3, 4, 5) for ad in ads)

    def outcome(self, case: str, ads: list[dict[str, Any]]) -> Outcome:
        clusters = sorted(self.clusters[case])
        jobs = {}
        for ad in ads:
            if ad["ClusterId"] in clusters:
                place = f"{ad['ClusterId']}.{ad['ProcId']}"
                seen = {
                    name: ad.get(name)
                    for name in (
                        "JobStatus", "ExitCode", "HoldReasonCode", "HoldReasonSubCode",
                        "NumJobCompletions",
                    )
                }  # fmt: skip
                if ad["JobStatus"] == 5:
                    seen["HoldReason"] = re.sub("expression '.*'", "*", ad["HoldReason"])
                    if case == "no-program":  # HTCondor's own code tells it from an exit's hold
                        del seen["HoldReason"], seen["HoldReasonCode"], seen["ExitCode"]
                        del seen["NumJobCompletions"]
                        jobs[clusters.index(ad["ClusterId"]), ad["ProcId"]] = seen
                        continue
                for stream in ("out", "err"):
                    for folder in (".", "runA", "runB"):
                        path = self.desk.directory / folder / f"{stream}.{place}"
                        if path.exists():
                            own = str(self.desk.directory).encode()
                            lines = path.read_bytes().replace(own, b"HERE").splitlines()
                            told = [line for line in lines if not line.startswith(b"htlease: ")]
                            seen |= {stream: told} if told else {}
                            seen["folder"] = folder
                jobs[clusters.index(ad["ClusterId"]), ad["ProcId"]] = seen
        return Outcome(sum(self.clusters[case].values()), jobs)


class Native(Way):
    def _submit(self, file: str) -> Any:
        return self.desk.lab.pool.run(
            ["condor_submit", file],
            cwd=self.desk.directory,
            check=False,
            env={"SHOW": str(self.desk.directory / "show.sh")},
        )


class Leased(Way):
    def _submit(self, file: str) -> Any:
        return self.desk.htlease(
            "submit", file, "--pyz", "htlease-ep.pyz", "--workflow", file.removesuffix(".sub"),
            more_env={"SHOW": str(self.desk.directory / "show.sh")},
        )  # fmt: skip


def cases(lab: Lab) -> dict[str, str]:
    version = lab.pool.run(["condor_version"]).stdout
    return CASES | (ONLY_23 if "23.9" in version else ONLY_25)


@pytest.mark.timeout(420)
def test_every_file_does_what_it_does_without_us_and_has_leases(lab: Lab) -> None:
    native, leased = Native(desk_in(lab, "native")), Leased(desk_in(lab, "leased"))
    known = cases(lab)
    for case, text in known.items():
        for way in (native, leased):
            way.submit(case, text)
    try:
        lab.wait_for(lambda: native.is_done() and leased.is_done(), "all jobs to end", 240)
    except Exception as error:
        left = [ad for way in (native, leased) for ad in way.ads() if ad["JobStatus"] in (1, 2)]
        raise AssertionError(f"these have not ended: {left}") from error
    wrong: dict[str, tuple[Any, Any]] = {}
    ads = {way: way.ads() for way in (native, leased)}
    for case in known:
        expected = native.outcome(case, ads[native])
        found = leased.outcome(case, ads[leased])
        if found.count != expected.count or found.jobs.keys() != expected.jobs.keys():
            wrong[case] = (expected, found)
            continue
        for which, job in expected.jobs.items():
            differs = {
                name
                for name in {*job, *found.jobs[which]}
                if job.get(name) != found.jobs[which].get(name)
            }
            if differs:
                one, other = (
                    {name: ad.get(name) for name in differs} for ad in (job, found.jobs[which])
                )
                wrong[f"{case} {which}"] = (one, other)
        for ad in ads[leased]:
            if ad["ClusterId"] in leased.clusters[case]:
                subjob = leased.desk.subjob(ad["HTLeaseKey"])
                has_run = ad.get("ExitCode") is not None
                if has_run and (subjob["exit_code"], len(subjob["attempts"])) != (
                    ad["ExitCode"], ad["NumJobCompletions"] or 1,  # not counted in local universe
                ):  # fmt: skip
                    wrong[f"{case} {ad['ProcId']}"] = (ad, subjob)
    assert not wrong, "\n\n".join(
        f"{case}\n  expected {one}\n  found    {other}" for case, (one, other) in wrong.items()
    )
