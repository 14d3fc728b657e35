"""One call of a script by DAGMan: the words it is given, and which try of which node they mean."""

from __future__ import annotations

import re

from htlease.errors import BadConfig
from htlease.rules.start_number import ReadFrom, start_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: What the scripts need; each is given as `NAME $NAME`, for DAGMan replaces whole words only.
MACROS: Mapping[str, tuple[str, ...]] = {
    "pre": ("JOB", "RETRY", "MAX_RETRIES", "DAGID"),
    "post": ("JOB", "RETRY", "MAX_RETRIES", "DAGID", "JOBID", "RETURN"),
    "hold": ("JOB", "RETRY", "MAX_RETRIES", "DAGID", "JOBID"),
}

#: The scripts' own exit statuses: `SCRIPT DEFER` and `PRE_SKIP` of the generated include file
#: name them. Numbers that neither shells nor sysexits.h use.
DEFER = 235
SKIP = 236

#: Begins the name of a run whose DAGMan has no job ad: two of them may have the same.
_NAMELESS = "dagman#"
_STRING = re.compile(r'^GlobalJobId\s*=\s*"([^"\\]+)"\s*$', re.MULTILINE)
#: DAGMan's own command line. Source: measured on 23.9.6 and 25.14.1.
_ARGUMENTS = re.compile(r'^Arg(?:ument)?s\s*=\s*"(.*)"\s*$', re.MULTILINE | re.IGNORECASE)
_DAG_FILE = re.compile(r"(?<!\S)-dag\s+(\S+)", re.IGNORECASE)
_STARTS = re.compile(r"^NumJobStarts\s*=\s*(\d+)\s*$", re.MULTILINE)


def words_for(kind: str, settings_file: str, also: Iterable[str] = ()) -> list[str]:
    """Return the arguments of a SCRIPT line; `also` names macros that chained scripts use."""
    names = dict.fromkeys([*MACROS[kind], *also])
    names.pop("NODE", None)  # the same as JOB, which older versions know too
    return [kind, settings_file, *(word for name in names for word in (name, f"${name}"))]


class Call:
    """What DAGMan says in one call."""

    def __init__(
        self,
        kind: str,
        macros: Mapping[str, str],
        dag: str,
        dagman_start: int | None,
        files: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        #: By upper-case name without `$`.
        self.macros = macros
        #: What names this run of DAGMan: its job's GlobalJobId.
        self.dag = dag
        #: Which start of DAGMan this is: orders the scripts that it starts anew after a crash.
        self.dagman_start = dagman_start
        #: The DAG files that were submitted as one, as far as DAGMan's ad tells.
        self.files = files
        #: The node is for all of the DAG's submission, however often it is tried in it.
        self.is_once = False

    @property
    def node(self) -> str:
        """The node's name, that of a splice's with its prefix."""
        return self.macros["JOB"]

    @property
    def retry(self) -> int:
        """Which retry of the node this is, 0 = none."""
        return int(self.macros["RETRY"])

    @property
    def retries_max(self) -> int:
        """How many retries the node has."""
        return int(self.macros["MAX_RETRIES"])

    @property
    def try_id(self) -> str:
        """What all scripts of one try of the node, and no others, have in common.

        A rescue DAG is another run, in which `$RETRY` begins again. Source: measured.
        """
        return f"{self.dag}/{0 if self.is_once else self.retry}"

    @property
    def is_named_by_dagman(self) -> bool:
        """Whether the run of DAGMan could be named by its own job ad."""
        return not self.dag.startswith(_NAMELESS)

    def expand(self, words: Sequence[str]) -> list[str]:
        """Replace whole words as DAGMan does; what it does not know stays as it is."""
        return [
            self.macros.get(word[1:].upper(), word) if word.startswith("$") else word
            for word in words
        ]


def read_call(kind: str, words: Sequence[str], environ: Mapping[str, str]) -> Call:
    """Read the words after the settings file; raises BadConfig."""
    if kind not in MACROS or len(words) % 2:
        raise BadConfig(f"{kind}: the words do not come in pairs NAME VALUE: {' '.join(words)}")
    macros = dict(zip(words[::2], words[1::2], strict=True))
    missing = [name for name in MACROS[kind] if name not in macros]
    if missing:
        raise BadConfig(f"{kind}: {', '.join(missing)} not given; instrument the DAG again")
    for name in ("RETRY", "MAX_RETRIES", *(("RETURN",) if kind == "post" else ())):
        if not re.fullmatch(r"-?\d+", macros[name]):
            raise BadConfig(f"{kind}: {name} is {macros[name]!r}, not a number")
    macros.setdefault("NODE", macros["JOB"])
    ad = _job_ad(environ)
    starts, arguments = _STARTS.search(ad), _ARGUMENTS.search(ad)
    return Call(
        kind,
        macros,
        _dag(ad, macros["DAGID"]),
        start_number(int(starts[1]), ReadFrom.JOB_AD) if starts else None,
        _DAG_FILE.findall(arguments[1]) if arguments else (),
    )


def first_try(environ: Mapping[str, str], dag_id: str) -> str:
    """Return what names one submission of a DAG to a node, whatever starts or tries anything again.

    `dag_id` is `$DAGID`, for a DAGMan that is no job.
    """
    return f"{_dag(_job_ad(environ), dag_id)}/0"


def _dag(ad: str, dag_id: str) -> str:
    name = _STRING.search(ad)
    return name[1] if name else f"{_NAMELESS}{dag_id}"


def _job_ad(environ: Mapping[str, str]) -> str:
    """Return the ad of DAGMan's own job, or nothing: it is only written for jobs."""
    try:
        with open(environ["_CONDOR_JOB_AD"], encoding="utf-8", errors="replace") as file:
            return file.read()
    except (KeyError, OSError):
        return ""


def told(status: int) -> int:
    """Return what DAGMan is told for a failure: never what DEFER and PRE_SKIP stand for."""
    return status if 0 < status < 256 and status not in (DEFER, SKIP) else 1
