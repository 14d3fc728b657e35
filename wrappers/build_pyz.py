"""Builds htlease-ep.pyz: core, wrapper, hooks and what they bundle, in one file that runs anywhere.

The same sources give the same bytes, so that a site can check what it deployed: entries are
sorted, carry one fixed date and are stored uncompressed. Runs on a developer's machine.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ROOT / "wrappers" / "bundled.txt"
WHEELS = ROOT / "build" / "bundled"
START = ROOT / "wrappers" / "start"
#: The first instant that a zip file can name.
FIXED_DATE = (1980, 1, 1, 0, 0, 0)
#: Not for execution points: the server's half of the rules, and what only access points need.
NOT_FOR_THE_EP = frozenset(
    f"htlease/{name}.py"
    for name in (
        *("rules/acquire", "rules/fenced_writes", "rules/replies", "rules/rollup", "rules/state"),
        *("config/diagram", "client/__init__", "client/client", "client/connection"),
        *("condor/bindings_process", "condor/condor_config", "condor/job_event", "condor/schedd"),
        *("condor/startd", "condor/submit_description", "condor/queue_statement"),
        "condor/queued_ad",
    )
)
#: Not in every Python that will do; whatever imports them can do without, or is seldom needed.
DISPENSABLE = frozenset({"ctypes", "py_compile", "ssl", "tomllib"})
_PINNED = re.compile(r"(?P<name>[a-z]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


class BuildError(Exception):
    """The file cannot be built; the text says why."""


def build(target: Path) -> None:
    """Write the executable file; raises BuildError."""
    entries = dict([*_own_sources(), *_bundled_sources()])
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.new")
    with temporary.open("wb") as file:
        file.write(_prelude(entries))
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(entries):
                info = zipfile.ZipInfo(name, FIXED_DATE)
                info.external_attr = 0o644 << 16
                info.create_system = 3  # Unix, whatever the build machine is
                archive.writestr(info, entries[name])
    temporary.chmod(0o755)
    temporary.replace(target)


def _prelude(entries: Mapping[str, bytes]) -> bytes:
    """Return the shell script in front of the archive, with the Python texts that it starts."""
    probe = _one_text(START / "probe.py")
    probe = probe.replace("@NEEDED_MODULES@", " ".join(_needed_modules(entries)))
    script = (START / "prelude.sh").read_text()
    script = script.replace("@PROBE@", probe).replace("@BOOT@", _one_text(START / "boot.py"))
    return script.encode("ascii")


def _one_text(path: Path) -> str:
    """Return a Python file without docstring and comments, for a shell's single quotes."""
    text = path.read_text()
    lines = text.splitlines()[ast.parse(text).body[0].end_lineno :]
    lines = [re.sub(r"(^|  )\s*#.*", "", line) for line in lines]
    text = "\n".join(line for line in lines if line.strip())
    if "'" in text:
        raise BuildError(f"{path} has a single quote, which the shell script around it cannot hold")
    return text


def _needed_modules(entries: Mapping[str, bytes]) -> list[str]:
    """Return the modules of the standard library that the archive cannot do without."""
    found: set[str] = set()
    for name, content in entries.items():
        if not name.endswith(".py") or name.startswith("tomli/"):
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return sorted((found & sys.stdlib_module_names) - DISPENSABLE)


def _own_sources() -> Iterator[tuple[str, bytes]]:
    wrapper = ROOT / "wrappers"
    yield "__main__.py", (wrapper / "htlease_wrapper" / "__main__.py").read_bytes()
    for root, package in (
        (ROOT / "core", "htlease"),
        (wrapper, "htlease_wrapper"),
        (ROOT / "hooks", "htlease_hooks"),
    ):
        for path in (root / package).rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.suffix in (".py", ".json") and name not in NOT_FOR_THE_EP:
                yield name, path.read_bytes()


def _bundled_sources() -> Iterator[tuple[str, bytes]]:
    for line in BUNDLED.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pinned = _PINNED.fullmatch(line)
        if pinned is None:
            raise BuildError(f"{BUNDLED}: {line!r} is not NAME==VERSION --hash=sha256:HASH")
        wheel = WHEELS / f"{pinned['name']}-{pinned['version']}-py3-none-any.whl"
        if not wheel.exists():
            _download()
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != pinned["sha256"]:
            raise BuildError(f"{wheel} is not the file that {BUNDLED} names; remove it")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".py"):
                    yield name, archive.read(name)
                elif "LICENSE" in name:
                    yield f"licenses/{pinned['name']}.txt", archive.read(name)


def _download() -> None:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
        *("--require-hashes", "--requirement", str(BUNDLED), "--dest", str(WHEELS)),
        # Ask for the pure Python wheels, whatever this machine could run.
        *("--only-binary=:all:", "--platform", "any", "--implementation", "py", "--abi", "none"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"pip cannot download what {BUNDLED} names:\n{done.stderr.strip()}")


def main() -> int:
    """Build to --output and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "htlease-ep.pyz")
    target: Path = parser.parse_args().output
    try:
        build(target)
    except BuildError as error:
        sys.stderr.write(f"build_pyz: {error}\n")
        return 1
    data = target.read_bytes()
    sys.stdout.write(f"{target}  {len(data)} bytes  sha256 {hashlib.sha256(data).hexdigest()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
