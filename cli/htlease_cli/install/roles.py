"""What a machine can be to htlease, and the configuration file that makes it that."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig

#: `KEYWORD_HOOK_NAME = $(HTLEASE_HOOK_DIR...)/link`
_HOOK = re.compile(
    r"^[ \t]*(?P<knob>\w+_HOOK_[A-Z_]+)[ \t]*=[ \t]*\$\(HTLEASE_HOOK_DIR.*\)/(?P<link>\w+)[ \t]*$",
    re.MULTILINE,
)
#: How the head of a file says that it has a macro, and those that it has for another of the files.
_MACRO = re.compile(r"^#   (HTLEASE_[A-Z_]+) ", re.MULTILINE)
_UNSAID = {"ap": {"HTLEASE_PROTECTED_ATTRS"}}
FILES = {
    "ep": "execution-point.conf",
    "ap": "access-point.conf",
    "router": "job-router.conf",
}
NAMES = {"ep": "execution point", "ap": "access point", "router": "Job Router"}


@dataclass(frozen=True)
class Role:
    """A role with the configuration file that comes with htlease."""

    name: str
    text: str

    @property
    def file_name(self) -> str:
        """Name of the installed file: after those of packages, before a site's last word."""
        return f"60-htlease-{self.name}.conf"

    @property
    def hooks(self) -> dict[str, str]:
        """Configuration macro of each hook -> name of the link it points to."""
        return {match["knob"]: match["link"] for match in _HOOK.finditer(self.text)}

    @property
    def macros(self) -> set[str]:
        """Names of the macros by which a site sets the role up."""
        return {"HTLEASE_URL", *_MACRO.findall(self.text), *_UNSAID.get(self.name, ())}


def read_role(name: str) -> Role:
    """Read a role's file: installed beside the packages, or in a checkout; raises BadConfig."""
    places = [
        Path(sys.prefix) / "share" / "htlease" / "condor",
        Path(__file__).resolve().parents[3] / "hooks" / "condor",
    ]
    for place in places:
        if (place / FILES[name]).is_file():
            return Role(name, (place / FILES[name]).read_text())
    raise BadConfig(f"{FILES[name]} is in neither {' nor '.join(map(str, places))}")
