#!/usr/bin/env python3
"""As much of Slurm as blahp calls: sbatch, squeue, sacct and scancel, by the name of the link.

A job is a folder `jobs/ID` beside this file, and runs on this machine. `srequeue ID` stands for a
failed node: the job is killed without notice and started again under its ID.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(sys.argv[0]).absolute().parent
JOBS = HERE / "jobs"


def read(job: pathlib.Path, name: str) -> str:
    path = job / name
    return path.read_text().strip() if path.exists() else ""


def start(job: pathlib.Path) -> None:
    """Run the job's script in a session of its own and note how it ends."""
    script = (
        'echo $$ > pid.new; mv pid.new pid; bash "$0/script"; code=$?; cd "$0"; '
        "echo $code > code.new; mv code.new code"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("_CONDOR")
    }
    subprocess.Popen(
        ["bash", "-c", f'cd "$0"; {script}', str(job)],
        env={**environment, "SLURM_JOB_ID": job.name},
        stdin=subprocess.DEVNULL,
        stdout=(job / "out").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(job: pathlib.Path, number: int) -> None:
    while not read(job, "pid"):
        time.sleep(0.05)
    try:
        os.killpg(int(read(job, "pid")), number)
    except ProcessLookupError:
        pass


def state(job: pathlib.Path) -> str:
    if read(job, "cancelled"):
        return "CANCELLED"
    code = read(job, "code")
    return "RUNNING" if not code else "COMPLETED" if code == "0" else "FAILED"


def sbatch(arguments: "list[str]") -> None:
    number = 4711
    while True:
        job = JOBS / str(number)
        try:
            job.mkdir()
            break
        except FileExistsError:
            number += 1
    (job / "script").write_text(pathlib.Path(arguments[-1]).read_text())
    start(job)
    print(f"Submitted batch job {number}")


def squeue(arguments: "list[str]") -> None:
    print("JOBID STATE")
    for job in JOBS.iterdir():
        if state(job) == "RUNNING":
            print(f"{job.name} RUNNING")


def sacct(arguments: "list[str]") -> None:
    job = JOBS / arguments[arguments.index("-j") + 1]
    columns = arguments[arguments.index("--format") + 1].split(",")
    known = {
        "JobID": job.name,
        "ExitCode": f"{read(job, 'code') or 0}:0",
        "AllocCPUS": "1",
        "UserCPU": "00:00",
        "SystemCPU": "00:00",
    }
    print("|".join(columns))
    print("|".join(known.get(column, "") for column in columns))


def scancel(arguments: "list[str]") -> None:
    job = JOBS / arguments[-1]
    (job / "cancelled").write_text("yes")
    stop(job, signal.SIGTERM)


def srequeue(arguments: "list[str]") -> None:
    job = JOBS / arguments[-1]
    stop(job, signal.SIGKILL)
    (job / "pid").unlink()
    start(job)


if __name__ == "__main__":
    calls = (sbatch, squeue, sacct, scancel, srequeue)
    {call.__name__: call for call in calls}[pathlib.Path(sys.argv[0]).name](sys.argv[1:])
