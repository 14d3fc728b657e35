"""One configuration of HTCondor on this machine: which it is, and what it says. Reads only."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig

_TOOL = "condor_config_val"
_ANSWER_SECONDS = 30.0
#: Where packages put the two configurations that one machine may have.
_USUAL = ("etc/condor/condor_config", "etc/condor-ce/condor_config")
_MORE_PLACES = "/usr/sbin:/usr/bin:/usr/local/bin"


class ConfigRejected(BadConfig):
    """HTCondor does not understand its configuration."""


@dataclass(frozen=True)
class CondorConfig:
    """A configuration: its main file, and the root of its machine, `/` but for an image.

    An image is read with the tools, and so in the version, of this machine.
    """

    main: Path
    root: Path = Path("/")

    def value(self, name: str) -> str | None:
        """Return a macro's value with all macros in it replaced, None when it is not defined.

        Raises ConfigRejected when HTCondor cannot read its configuration.
        """
        return self.values((name,)).get(name)

    def values(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return the values, of one line each, of those macros that are defined and not empty."""
        done = self._ask(names)
        undefined = set(re.findall(r"^Not defined: (\S+)$", done.stderr, re.MULTILINE))
        defined = [name for name in names if name not in undefined]
        found = done.stdout.splitlines()
        if len(found) != len(defined):
            raise ConfigRejected(
                f"HTCondor cannot read its configuration {self.main}: {_one_line(done.stderr)}"
            )
        return {name: value for name, value in zip(defined, found, strict=True) if value}

    def names(self, beginning: str) -> set[str]:
        """Return the names of all defined macros that begin so, in capitals."""
        found = re.findall(r"^(\w+) =", self._ask(("-dump", beginning)).stdout, re.MULTILINE)
        return {name.upper() for name in found if name.upper().startswith(beginning)}

    def version(self) -> tuple[int, ...]:
        """Return HTCondor's version, e.g. (25, 14, 1)."""
        return parse_version(self.value("CONDOR_VERSION") or "")

    def directory(self) -> Path:
        """Return the last directory of LOCAL_CONFIG_DIR, whose files win; raises BadConfig."""
        names = self._local_paths("LOCAL_CONFIG_DIR")
        if not names:
            raise BadConfig(
                f"{self.main} has no LOCAL_CONFIG_DIR; give it one, or include the files of "
                "hooks/condor yourself"
            )
        return self.below(names[-1])

    def below(self, path: str) -> Path:
        """Return where a path that the configuration names is on this machine."""
        return self.root / path.lstrip("/")

    def _local_paths(self, name: str) -> list[str]:
        return [path for path in re.split(r"[,\s]+", _run(self.main, (name,)).stdout) if path]

    def _ask(self, names: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        if self.root == Path("/"):
            return _run(self.main, names)
        with tempfile.NamedTemporaryFile("w", prefix="htlease-", suffix=".conf") as file:
            file.write(f"include : {self.main}\n")
            for macro in ("LOCAL_CONFIG_DIR", "LOCAL_CONFIG_FILE"):
                paths = [str(self.below(path)) for path in self._local_paths(macro)]
                file.write(f"{macro} = {', '.join(paths)}\n")
            file.flush()
            return _run(Path(file.name), names)


def _run(main: Path, names: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CONDOR_CONFIG": str(main)}
    environment["PATH"] = f"{environment.get('PATH', '')}:{_MORE_PLACES}"
    try:
        return subprocess.run(
            [_TOOL, *names],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
        )
    except OSError:  # not there, or behind a directory of PATH that is not ours to look into
        raise BadConfig(f"{_TOOL} is not on PATH; run this where HTCondor is installed") from None
    except subprocess.TimeoutExpired:
        raise BadConfig(f"{_TOOL} did not answer in {_ANSWER_SECONDS:g} s") from None


def find_config(environ: Mapping[str, str], root: Path = Path("/")) -> CondorConfig:
    """Return the configuration to act on; raises BadConfig when there is none, or more than one.

    `CONDOR_CONFIG` names it; else there must be exactly one in the usual places. A machine with an
    HTCondor-CE has two, and which one is meant is never guessed.
    """
    named = environ.get("CONDOR_CONFIG")
    if named:
        main = root / named.lstrip("/")
        if not main.is_file():
            raise BadConfig(
                f"CONDOR_CONFIG names {main}, which is not a file; let it name HTCondor's "
                "configuration file, such as /etc/condor/condor_config"
            )
        return CondorConfig(main, root)
    usual = [root / place for place in _USUAL if (root / place).is_file()]
    if len(usual) > 1:
        raise BadConfig(
            f"this machine has {' and '.join(map(str, usual))}; say which is meant, e.g. "
            f"`CONDOR_CONFIG={usual[0]} htlease hooks ...`"
        )
    if not usual:
        raise BadConfig(
            f"there is no {root / _USUAL[0]}; set CONDOR_CONFIG to HTCondor's configuration file"
        )
    return CondorConfig(usual[0], root)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first `X.Y.Z` of a text as numbers, or () when there is none."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, match.groups())) if match else ()


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "no reason given"
