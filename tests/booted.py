"""A machine that a real systemd has booted: a Debian root of its own, in name spaces of its own.

Nothing in it reaches this machine: its disk is an overlay, its network a loopback device, its
kernel settings read-only. Needs root, as pools do.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from htlease_lab.pool.debian import unpacked
from htlease_lab.pool.instance import base_directory
from tests.process.execution import wait_for

_PACKAGES = "systemd,libnss-systemd,procps,python3,python3-venv"
_BOOT_SECONDS = 60.0
_COMMAND_SECONDS = 120.0
_CLONE_NEWNET = 0x40000000

# $1 the root below, $2 a directory for what changes, $3 a name; this is the first process already.
_FIRST_PROCESS = r"""
set -e
base=$1 changes=$2 name=$3
mkdir -p "$changes/upper" "$changes/work" "$changes/cgroup"
mount -t cgroup2 cgroup2 "$changes/cgroup"
mkdir -p "$changes/cgroup/$name"
echo 0 > "$changes/cgroup/$name/cgroup.procs"
umount "$changes/cgroup"
root=$changes/root
mkdir -p "$root"
mount -t overlay overlay "$root" \
    -o "lowerdir=$base,upperdir=$changes/upper,workdir=$changes/work"
mount -t proc proc "$root/proc"
# systemd would raise this machine's own limits otherwise.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up
ip address add 192.0.2.7/32 dev lo
echo lease > /proc/sys/kernel/hostname
cd "$root"
exec unshare --cgroup sh -ec '
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    pivot_root . mnt
    umount -l /mnt
    cd /
    exec env --ignore-environment container=htlease PATH=/usr/sbin:/usr/bin \
        setpriv --bounding-set=-sys_module,-sys_time /lib/systemd/systemd --log-target=console
'
"""


class Machine:
    """A machine that can be booted, crashed, and booted again with the same disk."""

    def __init__(self, folder: Path) -> None:
        self._root = unpacked("trixie", _PACKAGES, base_directory() / "roots" / "systemd", print)
        self._changes = folder
        self._name = f"htlease-booted-{os.getpid()}"
        self._console = folder.with_suffix(".console")
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def boot(self) -> None:
        """Return when systemd says that it has started everything, and that nothing failed.

        Skips the test where the kernel gives no cgroup, which no systemd can do without.
        """
        make = 'mkdir -p "$0"; mount -t cgroup2 cgroup2 "$0"; mkdir "$0/$1-try"; rmdir "$0/$1-try"'
        command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", make]
        made = subprocess.run(
            [*command, self._changes / "cgroup", self._name], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"no cgroup can be made here for a systemd: {made.stderr.strip()}")
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork"),
                    *("--kill-child", "--propagation=private", "--"),
                    *("sh", "-c", _FIRST_PROCESS, "htlease-booted"),
                    *(self._root, self._changes, self._name),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._pid = 0
        wait_for(self._has_booted, "systemd to take requests", _BOOT_SECONDS)
        state = self.run("systemctl", "is-system-running", "--wait", check=False)
        assert state == "running\n", self.run("journalctl", "--boot", "--lines=100")

    def _has_booted(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(
                "systemd does not boot here, as root in name spaces and a cgroup of its own: "
                + self._console.read_text()
            )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        first = children.read_text().split()
        if first and Path(f"/proc/{first[0]}/comm").read_text() == "systemd\n":
            self._pid = int(first[0])
            return self.file("/run/systemd/private").exists()
        return False

    def crash(self) -> None:
        """End every process at once, as a power failure does; the disk stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Crash, and leave no cgroup behind."""
        self.crash()
        wait_for(self._is_removed, "the cgroup of the machine to go", 30)

    def _is_removed(self) -> bool:
        look = f"""
            mount -t cgroup2 cgroup2 {shlex.quote(str(self._changes / "cgroup"))} && cd "$_" &&
            {{ [ ! -e {self._name} ] || find {self._name} -depth -type d -exec rmdir {{}} +; }}
        """
        return not subprocess.run(["unshare", "--mount", "bash", "-c", look]).returncode

    def file(self, path: str) -> Path:
        """Return where this machine sees a file of the booted one; absolute links mislead."""
        return Path(f"/proc/{self._pid}/root{path}")

    def read(self, path: str) -> str:
        """Return what a file has, links followed as the booted machine does."""
        return self.run("cat", path)

    def write(self, path: str, text: str) -> None:
        """Write a file, and its directory where there is none."""
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_text(text)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Let this thread make its sockets in the booted machine meanwhile."""
        namespaces = (Path("/proc/thread-self/ns/net"), Path(f"/proc/{self._pid}/ns/net"))
        with namespaces[0].open() as ours, namespaces[1].open() as theirs:
            _enter(theirs.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command as root's shell would."""
        return subprocess.Popen(
            [
                *("nsenter", f"--target={self._pid}", "--mount", "--pid", "--uts", "--ipc"),
                *("--net", "--cgroup", "--", "env", "--ignore-environment", "HOME=/root"),
                *("LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/sbin:/usr/bin"),
                *argv,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a command to its end; return its output, which a failure shows."""
        with self.start(*argv) as process:
            try:
                output = process.communicate(timeout=_COMMAND_SECONDS)[0].decode()
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"{shlex.join(argv)} did not end")
        if check and process.returncode:
            pytest.fail(f"{shlex.join(argv)} ended with {process.returncode}:\n{output}")
        return output

    def shell(self, lines: str) -> str:
        """Run lines of a manual, each of which has to succeed."""
        return self.run("sh", "-ec", lines)

    def wait_for(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds; a failure shows the end of the journal."""
        try:
            wait_for(holds, what, 60)
        except AssertionError as problem:
            journal = self.run("journalctl", "-n", "50", check=False)
            pytest.fail(f"{problem}\n{journal}")


def _enter(network: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
