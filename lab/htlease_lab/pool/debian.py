"""Unpacks a Debian suite into a private root, by the apt settings of this machine. Runs as root."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .errors import PoolError

_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: How long another program that installs packages is waited for.
_LOCK_SECONDS = 300
_MARKER = "etc/htlease-minipool"
# The apt settings of this machine that decide whether a download works; the rest is taste.
_APT_SETTINGS = re.compile(
    r"Acquire::(https?\b|Check-|Retries|ForceIPv|Max-ValidTime|Min-ValidTime|Languages|By-Hash)"
)


def unpacked(suite: str, packages: str, root: Path, report: Callable[[str], None]) -> Path:
    """Return a root that holds these packages (comma-separated) of a suite, unpacked if need be.

    One that was left half done is made anew. Raises PoolError.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / _MARKER).exists():
            _unpack(suite, packages, root, report)
    return root


def _unpack(suite: str, packages: str, root: Path, report: Callable[[str], None]) -> None:
    partial = root.with_name(f"{root.name}.partial")
    for leftover in (partial, root):
        if leftover.exists():
            shutil.rmtree(leftover)
    _need_packages(report)
    mirror, keyring = _mirror(), _keyring()
    report(f"unpacking {packages} of Debian {suite} ({mirror}) into {root}")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as apt_settings:
        apt_settings.write('APT::Install-Recommends "false";\n' + _apt_settings())
        apt_settings.flush()
        done = subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                "--variant=minbase",
                f"--include={packages}",
                f"--aptopt={apt_settings.name}",
                suite,
                str(partial),
                f"deb [signed-by={keyring}] {mirror} {suite} main",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise PoolError(
            f"mmdebstrap could not unpack Debian {suite} from {mirror}: "
            f"{'; '.join(errors) or done.stderr.strip()[-500:]}"
        )
    (partial / _MARKER).write_text(f"{suite} {mirror}\n")
    partial.rename(root)


def _need_packages(report: Callable[[str], None]) -> None:
    missing = [
        package
        for package, file in (
            ("mmdebstrap", shutil.which("mmdebstrap")),
            ("debian-archive-keyring", Path(_keyring()).exists()),
        )
        if not file
    ]
    if missing:
        install_packages(missing, report)


def install_packages(packages: list[str], report: Callable[[str], None]) -> None:
    """Install Debian packages on this machine with apt-get, after whoever is at it now.

    Raises PoolError with what apt-get says.
    """
    if not shutil.which("apt-get"):
        raise PoolError(f"{', '.join(packages)} missing and there is no apt-get: install by hand.")
    report(f"installing {', '.join(packages)} with apt-get")
    _apt_get(["update"], report)
    _apt_get(["install", "-y", "--no-install-recommends", *packages], report)


def _apt_get(words: list[str], report: Callable[[str], None]) -> None:
    # The option is for dpkg's lock; `update` has one of its own, for which it does not wait.
    argv = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}", *words]
    until = time.monotonic() + _LOCK_SECONDS
    has_told = False
    while True:
        done = subprocess.run(
            argv,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        is_locked = "get lock" in done.stderr and time.monotonic() < until
        if not done.returncode:
            return
        if not is_locked:
            raise PoolError(f"`apt-get {' '.join(words)}` failed: {done.stderr.strip()}")
        if not has_told:
            report("another program installs packages: waiting until it is done")
            has_told = True
        time.sleep(1)


def _mirror() -> str:
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(COMPONENT) $(REPO_URI)"],
        capture_output=True,
        text=True,
    ).stdout
    for line in listed.splitlines():
        kind, component, uri = line.split(maxsplit=2)
        if kind == "Packages" and component == "main" and uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    return _DEFAULT_MIRROR


def _keyring() -> str:
    # Debian before trixie ships .gpg, later releases .pgp with a .gpg link.
    newer = Path(_DEFAULT_KEYRING).with_suffix(".pgp")
    return str(newer) if newer.exists() else _DEFAULT_KEYRING


def _apt_settings() -> str:
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    return "".join(f"{line}\n" for line in dump.splitlines() if _APT_SETTINGS.match(line))
