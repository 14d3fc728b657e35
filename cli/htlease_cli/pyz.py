"""Finding the wrapper file (`htlease-ep.pyz`) that goes to the execution point with a job."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from htlease.errors import BadConfig

NAME = "htlease-ep.pyz"
_VERSION_SECONDS = 20.0
_INSTALLED = Path(sys.prefix) / "share" / "htlease" / NAME
_CHECKOUT = Path(__file__).resolve().parents[2]


def find_pyz(named: Path | None) -> Path:
    """Return the absolute path of the wrapper; raises BadConfig saying where it was looked for.

    The one that was named, else the one installed beside the packages, else the one that `make ep`
    leaves in a checkout, which is built if it is not there yet.
    """
    if named is not None:
        if not named.is_file():
            raise BadConfig(f"--pyz {named}: there is no such file; build one with `make ep`")
        if version_of(named) is None:
            raise BadConfig(f"--pyz {named}: is no htlease-ep.pyz; build one with `make ep`")
        return named.resolve()
    if _INSTALLED.is_file():
        return _INSTALLED
    built = _CHECKOUT / "dist" / NAME
    if not built.is_file():
        _build(built)
    return built


def kept_place(content: bytes, state: Path) -> Path:
    """Return where the copy of a wrapper is kept."""
    return state / "wrapper" / hashlib.sha256(content).hexdigest()[:16] / NAME


def kept_pyz(pyz: Path, state: Path) -> Path:
    """Return a copy that stays as it is while jobs wait for their start; raises BadConfig.

    It lies with the tokens, so that a job to which no files are transferred sees it where it sees
    those.
    """
    content = pyz.read_bytes()
    copy = kept_place(content, state)
    if not copy.is_file():
        temporary = copy.with_name(f"{NAME}.{os.getpid()}")
        try:
            copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.chmod(0o755)
            temporary.replace(copy)
        except OSError as error:
            raise BadConfig(f"{copy}: {error.strerror}") from None
    return copy


def put_pyz(target: Path) -> None:
    """Put the wrapper of this very htlease there; raises BadConfig."""
    if _INSTALLED.is_file():
        shutil.copyfile(_INSTALLED, target)
    else:
        _build(target)


def _build(target: Path) -> None:
    builder = _CHECKOUT / "wrappers" / "build_pyz.py"
    if not builder.is_file():
        raise BadConfig(f"{NAME} is not installed; name yours with --pyz")
    done = subprocess.run(
        [sys.executable, builder, "--output", target], capture_output=True, text=True
    )
    if done.returncode != 0 or not target.is_file():
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise BadConfig(f"{NAME} could not be built ({last}); run `make ep` and look")


def version_of(pyz: Path) -> str | None:
    """Return the version that a wrapper file says it has, or None when it does not run."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", pyz, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"htlease-ep ([^\s,]+)", done.stdout)
    return match[1] if match and done.returncode == 0 else None
