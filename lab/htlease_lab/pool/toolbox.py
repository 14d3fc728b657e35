"""Puts the htlease that runs here on the access point of a pool, as an installation there would be.

An access point in a root of its own has its own Python, so packages are copied: into a virtual
environment made by hand, which takes HTCondor's bindings from that Python. What is compiled for the
Python here stays behind; those packages have a pure form too. Runs on the host.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import PoolError

#: What runs on an access point.
_OURS = (
    *("htlease", "htlease_wrapper", "htlease_hooks", "htlease_dagman"),
    *("htlease_agent", "htlease_cli"),
)
_PROGRAMS = {"htlease": "htlease_cli.cli", "htlease-dag": "htlease_dagman.cli"}
_EXTRAS = frozenset({"ap", "agent"})
#: Tells the agent's libraries not to look for their compiled forms.
_PURE = tuple(
    f"{name}_NO_EXTENSIONS" for name in ("AIOHTTP", "FROZENLIST", "MULTIDICT", "PROPCACHE", "YARL")
)
_LAUNCHER = """\
#!{python}
import os
import sys

for name in {pure}:
    os.environ.setdefault(name, "1")
from {module} import main

sys.exit(main())
"""
_PUT_PYZ = (
    "import pathlib, sys; from htlease_cli import pyz; pyz.put_pyz(pathlib.Path(sys.argv[1]))"
)
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def place(directory: Path, root: Path) -> None:
    """Make the environment `directory` for the Python below `root`, in place of an earlier one.

    Raises PoolError when htlease is not installed here.
    """
    is_here = root == Path("/")
    extras = _EXTRAS | {"condor"} if is_here else _EXTRAS
    try:
        found = list(_distributions("htlease", extras, set()))
    except importlib.metadata.PackageNotFoundError:
        raise PoolError(
            f"{sys.executable} has no htlease to put on the access point: install it there."
        ) from None
    python = Path(sys.executable).resolve() if is_here else _python_of(root)
    new, old = (directory.with_name(f".{directory.name}.{word}") for word in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    packages = new / "lib" / python.name / "site-packages"
    packages.mkdir(parents=True)
    for distribution in found:
        _copy_distribution(distribution, packages, is_compiled_for_it=is_here)
    for name in _OURS:
        shutil.copytree(_package(name), packages / name, ignore=_IGNORED)
    share = new / "share" / "htlease"
    share.mkdir(parents=True)
    shutil.copytree(_condor_files(), share / "condor")
    _put_pyz(share / "htlease-ep.pyz")
    _write_programs(new, python, directory / "bin/python3")
    # An agent that runs from the earlier one may still import.
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


_IGNORED = shutil.ignore_patterns("__pycache__")


def _distributions(
    name: str, extras: frozenset[str], seen: set[str]
) -> Iterator[importlib.metadata.Distribution]:
    """Yield a distribution and what it requires; what markers leave out is not installed here."""
    distribution = importlib.metadata.distribution(name)
    yield distribution
    for requirement in distribution.requires or ():
        match, extra = _REQUIREMENT.match(requirement), _EXTRA.search(requirement)
        if match is None or (extra and extra[1] not in extras) or match[0] in seen:
            continue
        seen.add(match[0])
        try:
            yield from _distributions(match[0], frozenset(), seen)
        except importlib.metadata.PackageNotFoundError:
            continue


def _python_of(root: Path) -> Path:
    """Return the path of a root's Python, as seen in it: `/usr/bin/python3.13`."""
    link = root / "usr/bin/python3"
    if not link.is_symlink():
        raise PoolError(f"The access point has no Python: {link} is missing.")
    return Path("/usr/bin") / link.readlink().name


def _copy_distribution(
    distribution: importlib.metadata.Distribution, packages: Path, *, is_compiled_for_it: bool
) -> None:
    for file in distribution.files or ():
        is_outside = file.parts[0] == ".." or (len(file.parts) == 1 and file.suffix == ".pth")
        is_compiled = file.suffix == ".so" and not is_compiled_for_it
        if is_outside or is_compiled or file.suffix == ".pyc":
            continue
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise PoolError(f"{sys.executable} has no package {name}: install htlease as a whole.")
    return Path(spec.origin).parent


def _condor_files() -> Path:
    """Return the configuration files for HTCondor: installed, or those of a checkout."""
    places = (
        Path(sys.prefix) / "share" / "htlease" / "condor",
        _package("htlease_hooks").parent / "condor",
    )
    for found in places:
        if found.is_dir():
            return found
    raise PoolError(f"The configuration files for HTCondor are in neither {_either(places)}.")


def _either(paths: Iterable[Path]) -> str:
    return " nor ".join(map(str, paths))


def _put_pyz(target: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PUT_PYZ, str(target)], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise PoolError(f"htlease-ep.pyz cannot be made: {last}")


def _write_programs(directory: Path, base: Path, python: Path) -> None:
    programs = directory / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(base)
    settings = f"home = {base.parent}\ninclude-system-site-packages = true\n"
    (directory / "pyvenv.cfg").write_text(settings)
    for name, module in _PROGRAMS.items():
        text = _LAUNCHER.format(python=python, pure=_PURE, module=module)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
