"""`condor_submit -dry-run` of a Debian suite: what HTCondor itself makes of a submit file.

No daemon is needed. The program of a suite's root runs in name spaces of its own, where one folder
of this machine is at the same path and no name server can be asked (which takes most of the time
otherwise). Needs root, as unpacking the suite does.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from htlease_lab.pool.instance import base_directory
from htlease_lab.pool.software import provide

_ENTER = r"""#!/bin/sh
exec unshare --mount --net --uts sh -c '
    hostname localhost && ip link set lo up &&
    mount -t tmpfs none "$ROOT/tmp" && mkdir -p "$ROOT$FOLDER" &&
    mount --rbind "$FOLDER" "$ROOT$FOLDER" &&
    exec chroot "$ROOT" sh -c "cd \"\$0\" && exec /usr/bin/condor_submit \"\$@\"" "$PWD" "$@"
' sh "$@"
"""
_COUNT = re.compile(rb"^(\d+) job\(s\) dry-run to cluster \d+\.$", re.MULTILINE)
_ATTRIBUTE = re.compile(rb"([A-Za-z_][A-Za-z0-9_.]*)=(.*)")

Ad = Mapping[str, str]


@dataclass(frozen=True)
class DryRun:
    """What a submit file comes to: its jobs, or HTCondor's words of refusal."""

    #: One ad for each job; for a factory (late materialization) that of its first job alone.
    ads: tuple[Ad, ...]
    #: The number of jobs as it is said at the end, factories included.
    count: int
    #: What was said of mistakes; empty when there were none.
    said: str
    is_refused: bool


class CondorSubmit:
    """The `condor_submit` of a suite; `folder` is all that it sees of this machine."""

    def __init__(self, suite: str, folder: Path) -> None:
        root = provide(suite, base_directory() / "roots", print).root
        assert root is not None, "a suite is always unpacked"
        self.suite = suite
        self._root = root
        #: To be put in front of PATH.
        self.programs = folder / f"bin-{suite}"
        self.programs.mkdir(parents=True)
        program = self.programs / "condor_submit"
        program.write_text(_ENTER.replace("$ROOT", str(root)).replace("$FOLDER", str(folder)))
        program.chmod(0o755)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which `condor_submit` is this one."""
        return {"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": "/root", **more}

    def shipped_files(self) -> Iterator[Path]:
        """Yield the submit files that the suite's packages bring along."""
        for folder in ("usr/share", "usr/libexec", "usr/lib", "etc"):
            for path in (self._root / folder).rglob("*"):
                if path.suffix in (".sub", ".submit", ".jdl") and path.is_file():
                    yield path

    def dry_run(self, directory: Path, *arguments: str, **environment: str) -> DryRun:
        """Run it in a directory and read the ads."""
        done = subprocess.run(
            ["condor_submit", "-dry-run", "-", *arguments],
            cwd=directory,
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return read_dry_run(done.returncode, done.stdout, done.stderr)


def read_dry_run(status: int, stdout: bytes, stderr: bytes) -> DryRun:
    """Read what `condor_submit -dry-run -` printed.

    The first ad is whole and the others tell what differs, each ended by a line with a full stop
    or by nothing at all. Source: seen on 23.9.6 and 25.14.1.
    """
    count = sum(int(number) for number in _COUNT.findall(stdout))
    said = stderr.decode("latin-1").strip()
    return DryRun(tuple(_ads(stdout.splitlines())), count, said, status != 0)


def _ads(lines: Sequence[bytes]) -> list[Ad]:
    jobs: list[Ad] = []
    cluster: dict[str, str] = {}
    read = cluster
    for line in lines:
        found = _ATTRIBUTE.fullmatch(line)
        if found is None:
            continue
        name = found[1].decode()
        if name == "ClusterId":
            cluster = read = {}
        elif name == "ProcId":
            read = dict(cluster)
            jobs.append(read)
        read[name] = found[2].decode("latin-1")
    return jobs or ([cluster] if cluster else [])
