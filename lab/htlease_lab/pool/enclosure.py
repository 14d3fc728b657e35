"""The enclosure that holds all processes and mounts of a pool, and vanishes with its first process.

It has its own PID, mount and host name spaces; killing its first process ends everything inside
it, frozen or not, and nothing else. Runs as root on the host.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import PoolError

# $1 root or empty, $2 host name, $3 directory with files for /etc, then directories to show inside.
_FIRST_PROCESS = r"""
set -e
umask 022
root=$1 host=$2 etc=$3; shift 3
echo "$host" > /proc/sys/kernel/hostname
if [ -n "$root" ]; then
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    # Directories of root's that are shown are entered by the job user through this one.
    for own in run root; do mount -t tmpfs -o mode=755 tmpfs "$root/$own"; done
    for shown in "$@"; do
        mkdir -p "$root$shown"
        mount --bind "$shown" "$root$shown"
    done
fi
mount -t proc proc "$root/proc"
# Without the cgroup tree below it: HTCondor would make groups of its own on this machine.
mount -t sysfs -o ro sysfs "$root/sys"
for file in hosts passwd group; do mount --bind "$etc/$file" "$root/etc/$file"; done
if [ -n "$root" ]; then
    cd "$root"
    pivot_root . mnt
    umount -l /mnt
fi
cd /
echo ready
exec > /dev/null 2>&1
# Waits for every orphan that ends here.
while :; do sleep 3600 & wait; done
"""
_PAUSE = b"sleep 3600"
#: Without these nothing runs where they are hidden.
_SYSTEM = (
    *("/", "/mnt", "/tmp", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/dev"),
    *("/boot", "/proc", "/run", "/sys"),
)


@dataclass(frozen=True)
class Enclosure:
    """A running enclosure; `pid` is its first process as this machine counts."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Say whether that process is still the one that was started."""
        return start_time(self.pid) == self.started

    def is_own(self, pid: int, parent: int) -> bool:
        """Say whether a process is the first one, or the pause in which that waits for orphans."""
        if pid == self.pid:
            return True
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return parent == self.pid and argv == _PAUSE.replace(b" ", b"\0") + b"\0"

    def end(self) -> None:
        """Kill everything inside."""
        if not self.alive():
            return
        handle = os.pidfd_open(self.pid)
        try:
            if self.alive():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)

    def command(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        *,
        ids: tuple[int, int] | None = None,
        network: Path | None = None,
    ) -> list[str]:
        """Return the command that runs `argv` inside with exactly this environment.

        `ids` are the user and group to become, `network` the namespace to join.
        """
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts"]
        if network:
            enter.append(f"--net={network}")
        become = []
        if ids:
            become = ["setpriv", f"--reuid={ids[0]}", f"--regid={ids[1]}", "--clear-groups"]
        return [*enter, "--", *become, *plain_command(argv, environment, directory)]


def plain_command(
    argv: Sequence[str], environment: Mapping[str, str], directory: Path
) -> list[str]:
    """Return the command that runs `argv` in `directory` with exactly this environment.

    A shell lets what it starts in the background ignore SIGINT, and jobs would inherit that.
    """
    variables = [f"{name}={value}" for name, value in environment.items()]
    clean = ["env", "--ignore-environment", "--default-signal", f"--chdir={directory}"]
    return [*clean, *variables, *argv]


def shareable(directory: Path) -> Path:
    """Return a directory that an access point can have for itself alone; raises PoolError."""
    if str(directory) in _SYSTEM or not directory.is_dir():
        why = "execution points need it too" if directory.is_dir() else "there is no such directory"
        raise PoolError(f"{directory} cannot be shared with the access point: {why}.")
    return directory


def hiding(own: Path, shared: Sequence[Path], private: Sequence[Path]) -> str:
    """Return a script that hides directories from an execution point.

    `own` stays, though it may lie below one that is `shared`; `private` ones lie below it.
    """

    def hide(path: Path) -> str:
        return f"mount -t tmpfs -o size=64k tmpfs {shlex.quote(str(path))}"

    kept = shlex.quote(str(own))
    keep, put_back = f"mount --bind {kept} /mnt", f"mount --move /mnt {kept}"
    return "\n".join([keep, *map(hide, shared), f"mkdir -p {kept}", put_back, *map(hide, private)])


def start(root: Path | None, host: str, etc: Path, shown: Sequence[Path]) -> Enclosure:
    """Start an enclosure in `root` that sees the directories `shown` at the same path."""
    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--fork",
            "--propagation=private",
            "--",
            "sh",
            "-c",
            _FIRST_PROCESS,
            "htlease-minipool",
            str(root or ""),
            host,
            str(etc),
            *map(str, shown),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout and process.stderr
    if process.stdout.readline() != "ready\n":
        _, errors = process.communicate()
        raise PoolError(
            f"This machine does not permit private mounts ({errors.strip()}): give the container "
            "the right (CAP_SYS_ADMIN), or install HTCondor and start the pool without root."
        )
    process.stdout.close()
    process.stderr.close()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pid = int(children[0])
    return Enclosure(pid, start_time(pid))


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot, or '' if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
