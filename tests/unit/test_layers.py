"""Imports point down, no name stands for two modules, and execution points need the standard library only."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

#: Package -> which of our packages, and which third-party ones, it may import.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "core/htlease": (set(), {"tenacity", "tomli", "htcondor", "htcondor2", "classad", "classad2"}),
    "wrappers/htlease_wrapper": ({"htlease"}, set()),
    "hooks/htlease_hooks": ({"htlease", "htlease_wrapper"}, set()),
    "dagman/htlease_dagman": ({"htlease"}, {"globus_sdk", "tomli"}),
    "server_stub/htlease_server": (
        {"htlease"},
        {"httptools", "uvloop", "msgspec", "jwt", "prometheus_client", "psycopg"},
    ),
    "agent/htlease_agent": ({"htlease"}, {"aiohttp", "yarl"}),
    "cli/htlease_cli": (
        {"htlease", "htlease_agent", "htlease_dagman", "htlease_lab", "htlease_server"},
        {"click", "rich"},
    ),
    "lab/htlease_lab": ({"htlease", "htlease_agent", "htlease_cli", "htlease_dagman"}, set()),
}
_BINDINGS = {"core/htlease/condor/schedd.py"}
#: The one place that starts a server, the one that knows bindings, and so on.
ONLY_IN = {
    "globus_sdk": {"dagman/htlease_dagman/staging/backends/globus.py"},
    "htlease_lab": {"cli/htlease_cli/operate/scenario_command.py"},
    "htlease_server": {"cli/htlease_cli/operate/serve.py", "cli/htlease_cli/operate/stores.py"},
    "htcondor2": _BINDINGS,
    "htcondor": _BINDINGS,
    "classad2": _BINDINGS,
    "classad": _BINDINGS,
}
#: Of the modules that call the bindings, what others may use: types, the version, and what parses
#: submit language. That asks no daemon, and has to find files where the command was called; all
#: else may hang or end the interpreter, and is for the helper process.
BINDINGS = {
    "htlease.condor.schedd": {
        *("AccessPoint", "ActionRefused", "Plain", "QueuedJob", "ScheddUnavailable"),
        *("read_description", "expand_each", "expanded", "commands_of", "bindings_version"),
    },
    "htlease.condor.startd": set[str](),
}
HELPER_PROCESS = {
    f"core/htlease/condor/{name}.py" for name in ("bindings_process", "schedd", "startd")
}


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a module imports, at whatever place in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names)


def sources() -> list[Path]:
    return [path for place in MAY_IMPORT for path in sorted((PROJECT / place).rglob("*.py"))]


#: The start of the pyz, which carries both packages.
PYZ_START = "wrappers/htlease_wrapper/__main__.py"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_imports_only_what_its_folder_may(path: Path) -> None:
    place = "/".join(path.relative_to(PROJECT).parts[:2])
    ours, others = MAY_IMPORT[place]
    names = imported(path) - {Path(place).name}
    if str(path.relative_to(PROJECT)) == PYZ_START:
        names -= {"htlease_hooks"}
    assert names <= ours | others
    for name in names & set(ONLY_IN):
        assert str(path.relative_to(PROJECT)) in ONLY_IN[name]


def taken_from(tree: ast.Module, module: str) -> set[str]:
    """Return what a module uses of another one of ours, by whatever name it has it."""
    package, _, own = module.rpartition(".")
    found: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == module:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            names |= {alias.asname or own for alias in node.names if alias.name == own}
        elif isinstance(node, ast.Import) and any(alias.name == module for alias in node.names):
            found.add("all of it")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id in names else set()
        elif isinstance(node, ast.Name) and node.id in names and not isinstance(node.ctx, ast.Load):
            found.add("all of it")
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if str(path.relative_to(PROJECT)) not in HELPER_PROCESS],
    ids=lambda path: str(path.relative_to(PROJECT)),
)
def test_nobody_asks_a_daemon_by_the_bindings_in_its_own_process(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for module, allowed in BINDINGS.items():
        assert taken_from(tree, module) <= allowed


@pytest.mark.parametrize(
    ("source", "taken"),
    [
        ("from htlease.condor.schedd import locate, Plain", {"locate", "Plain"}),
        ("from htlease.condor import schedd\nschedd.locate(None)", {"locate"}),
        ("from htlease.condor import schedd as s\ns.locate(None)", {"locate"}),
        ("import htlease.condor.schedd", {"all of it"}),
        ("from htlease.condor import bindings_process as schedd\nschedd.locate(None)", set()),
    ],
)
def test_what_a_module_takes_is_seen(source: str, taken: set[str]) -> None:
    assert taken_from(ast.parse(source), "htlease.condor.schedd") == taken


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_is_short_enough_to_be_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_messages_and_rules_are_pure() -> None:
    impure = {"time", "random", "uuid", "socket", "logging", "os", "threading", "http"}
    for path in (PROJECT / "core" / "htlease" / "rules").glob("*.py"):
        tree = ast.parse(path.read_text())
        found = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not found & impure, path


#: Package -> its rooms from the lowest up; a room imports from itself and from those before it.
#: Modules beside each other in one word are one room.
ROOMS: dict[str, tuple[str, ...]] = {
    "core/htlease": (
        "errors version json_text",
        *("rules", "wire", "condor", "config", "execution", "client"),
    ),
    "hooks/htlease_hooks": (
        "hook_reply options site_hook timeout unix_http",
        *("starter", "shadow", "router", "cli"),
    ),
    "dagman/htlease_dagman": ("scripts", "dagfile", "staging", "cli"),
    "server_stub/htlease_server": (
        "logs counters",
        *("http", "store", "auth", "models", "engine", "api", "tools", "serve", "__main__"),
    ),
    "agent/htlease_agent": (
        "peer_credentials problems queue_reader server_token workflow_owners",
        *("proxy", "reconcile", "job_tokens routed_jobs hook_api", "daemon"),
    ),
    "cli/htlease_cli": (
        "file_install parameters pyz session tables",
        *("doctor", "submit", "install", "show", "operate", "staging", "dag", "logs", "cli"),
    ),
    "lab/htlease_lab": ("pool", "scenarios", "demo"),
}
ENTRIES_MAX = 12


def module_name(path: Path) -> str:
    """Return the name by which a source is imported."""
    parts = path.relative_to(PROJECT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, known: set[str]) -> Iterator[str]:
    """Yield our modules that one imports when it runs, wherever the import stands."""
    here = module_name(path)
    package = here if path.name == "__init__.py" else here.rpartition(".")[0]
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield from (one for one in (name if name in known else base,) if one in known)


GRAPH: dict[str, set[str]] = {}
for _path in sources():
    GRAPH[module_name(_path)] = set()
for _path in sources():
    GRAPH[module_name(_path)] |= set(imports_of(_path, set(GRAPH))) - {module_name(_path)}


def room_of(module: str, place: str) -> int:
    """Return how high the room of a module is."""
    name = module.split(".")[1]
    return next(i for i, room in enumerate(ROOMS[place]) if name in room.split())


@pytest.mark.parametrize("place", ROOMS)
def test_imports_point_down(place: str) -> None:
    package = Path(place).name
    modules = [name for name in GRAPH if name.startswith(f"{package}.")]
    upward = [
        f"{module} imports {other}"
        for module in modules
        for other in GRAPH[module]
        if other in modules and room_of(other, place) > room_of(module, place)
    ]
    assert not upward


def test_no_import_leads_back_to_where_it_began() -> None:
    left = {module: set(others) for module, others in GRAPH.items()}
    while free := {module for module, others in left.items() if not others & left.keys()}:
        for module in free:
            del left[module]
    # The start of the pyz is a wrapper or a hook, and a hook may go on as the wrapper.
    assert not left, sorted(left)


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_a_name_stands_for_one_module(place: str) -> None:
    names = Counter(
        path.stem for path in (PROJECT / place).rglob("*.py") if not path.stem.startswith("__")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_a_room_of_the_server_can_be_taken_in_at_a_glance() -> None:
    top = PROJECT / "server_stub" / "htlease_server"
    for folder in (top, *(path for path in top.iterdir() if path.is_dir())):
        entries = [
            path.name
            for path in folder.iterdir()
            if path.name not in ("__init__.py", "__pycache__", "py.typed")
        ]
        assert len(entries) <= ENTRIES_MAX, (folder, sorted(entries))
