"""A whole DAG with splices and includes: nodes, scripts, dependencies. Runs on the access point.

DAGMan reads each file twice: first what makes nodes, then everything else, in order. So a
command may name nodes that are made below it, and the last of two scripts of a node wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from htlease_dagman.dagfile.include_line import ENDING
from htlease_dagman.dagfile.lexer import NODE_KEYWORDS, BadDag, Command, Place, Words, read_commands

ALL_NODES = "ALL_NODES"
_RESERVED = ("PARENT", "CHILD", ALL_NODES)
#: Name of a splice within names of its nodes, and what follows it.
_SPLICE_SEPARATOR = "+"


@dataclass(frozen=True)
class Script:
    """A SCRIPT command of the user's."""

    place: Place
    #: `PRE`, `POST` or `HOLD`.
    kind: str
    #: Program and arguments with macros, as they stand in the file.
    command: str
    #: Exit status and seconds of `DEFER`.
    defer: tuple[int, int] | None = None
    #: File and stream of `DEBUG`.
    debug: tuple[str, str] | None = None


@dataclass(eq=False)
class Node:
    """A node; eq is identity, since its name grows while splices are worked in."""

    name: str
    #: `job`, `subdag`, `final`, `provisioner` or `service`.
    kind: str
    place: Place
    #: Path of the submit file, name of a submit description, or a sub-DAG's file.
    submit: str
    #: Where its scripts run and its submit file is looked for.
    directory: Path
    inline: str | None = None
    is_noop: bool = False
    scripts: dict[str, Script] = field(default_factory=dict)
    pre_skip: int | None = None
    #: Exit status of ABORT_DAG_ON, and where it stands.
    abort_on: tuple[int, Place] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    has_parents: bool = False
    has_children: bool = False


@dataclass(frozen=True)
class Dependency:
    """Each of the children waits for each of the parents."""

    place: Place
    parents: tuple[Node, ...]
    children: tuple[Node, ...]


@dataclass
class Dag:
    """The nodes of a DAG, or of a splice that is not worked into it yet."""

    nodes: dict[str, Node] = field(default_factory=dict)
    dependencies: list[Dependency] = field(default_factory=list)
    #: Named submit descriptions.
    descriptions: dict[str, str] = field(default_factory=dict)
    #: Whether there are nodes that come from splices.
    has_splices: bool = False
    #: The files that it was read from, without those of htlease.
    files: list[Path] = field(default_factory=list)
    _splices: dict[str, Dag] = field(default_factory=dict)
    _pins: dict[tuple[str, int], list[Node]] = field(default_factory=dict)

    def select(self, name: str) -> list[Node]:
        """Return the node of that name, or those for which ALL_NODES stands at this point."""
        if name.upper() == ALL_NODES:
            return [node for node in self.nodes.values() if node.kind in ("job", "subdag")]
        return [self.nodes[name]] if name in self.nodes else []


def read_dag(
    path: Path,
    submit_directory: Path,
    use_dag_directory: bool = False,
    without_ours: bool = False,
) -> Dag:
    """Read a DAG as DAGMan does when it runs in `submit_directory`. Raises BadDag.

    `use_dag_directory` is what `condor_submit_dag -usedagdir` does: everything is looked for in the
    directory of the DAG file. `without_ours` passes over the line that `with_line` added.
    """
    dag = Dag()
    reader = _Reader(use_dag_directory, without_ours)
    reader.read(dag, path, submit_directory, Place(path, 1))
    if not dag.nodes:
        raise BadDag(Place(path, 1), "there is no node in this DAG")
    _check_acyclic(dag)
    return dag


class _Reader:
    def __init__(self, use_dag_directory: bool, without_ours: bool) -> None:
        self._use_dag_directory = use_dag_directory
        self._without_ours = without_ours
        self._open: list[Path] = []
        self._rules: dict[str, Callable[[Dag, Command, Words], None]] = {
            "PARENT": _read_parent,
            "WEAK": _read_weak,
            "SCRIPT": _read_script,
            "VARS": _read_vars,
            "PRE_SKIP": _read_pre_skip,
            "ABORT_DAG_ON": _read_abort_on,
            "CONNECT": _read_connect,
            "PIN_IN": _read_pin,
            "PIN_OUT": _read_pin,
            **dict.fromkeys(
                ("RETRY", "PRIORITY", "TOLERANCE", "DONE", "CATEGORY", "SAVE_POINT_FILE"),
                _read_about_node,
            ),
        }

    def read(self, dag: Dag, path: Path, directory: Path, wanted_at: Place) -> None:
        """Read a file into a DAG; relative paths in it start at `directory`."""
        full = directory / path
        real = full.resolve()
        if real in self._open:
            raise BadDag(wanted_at, f"{path} includes itself")
        try:
            commands = read_commands(full, path)
        except OSError as error:
            hint = "" if path.is_absolute() else f" (looked for in {directory})"
            raise BadDag(wanted_at, f"{path}: {error.strerror}{hint}") from None
        if self._use_dag_directory:
            directory = full.parent
        self._open.append(real)
        dag.files.append(full)
        for command in commands:
            self._read_maker(dag, command, directory)
        for command in commands:
            words = command.words()
            if command.keyword == "INCLUDE":
                name = words.need("the file to include", keep_quotes=False)
                if len(self._open) > 1 or not (self._without_ours and name.endswith(ENDING)):
                    self.read(dag, Path(name), directory, command.place)
            elif command.keyword in self._rules:
                self._rules[command.keyword](dag, command, words)
        self._open.pop()
        _lift_splices(dag)

    def _read_maker(self, dag: Dag, command: Command, directory: Path) -> None:
        words = command.words()
        if command.keyword in NODE_KEYWORDS:
            _add_node(dag, command, words, directory, command.keyword.lower())
        elif command.keyword == "SUBDAG":
            if not words.take_if("EXTERNAL"):
                raise BadDag(command.place, "SUBDAG needs the word EXTERNAL after it")
            _add_node(dag, command, words, directory, "subdag")
        elif command.keyword == "SPLICE":
            self._read_splice(dag, command, words, directory)
        elif command.keyword == "SUBMIT_DESCRIPTION":
            name = words.need("the description's name")
            if command.inline is None:
                raise BadDag(command.place, f"submit description {name} has no {{ after its name")
            dag.descriptions.setdefault(name, command.inline)

    def _read_splice(self, dag: Dag, command: Command, words: Words, directory: Path) -> None:
        name = words.need("the splice's name")
        path = Path(words.need("the splice's file", keep_quotes=False))
        _check_new(dag, name, command.place)
        if words.take_if("DIR"):
            directory /= words.need("the directory after DIR", keep_quotes=False)
        splice = Dag()
        self.read(splice, path, directory, command.place)
        if any(node.kind == "final" for node in splice.nodes.values()):
            raise BadDag(command.place, f"splice {name} has a FINAL node; only a DAG can have one")
        dag._splices[name] = splice


def _check_new(dag: Dag, name: str, place: Place) -> None:
    if name.upper() in _RESERVED:
        raise BadDag(place, f"{name} is a word of DAGMan's and cannot be a name")
    if name in dag.nodes:
        raise BadDag(place, f"there is a node {name} already ({dag.nodes[name].place})")
    if name in dag._splices:
        raise BadDag(place, f"there is a splice {name} already")


def _add_node(dag: Dag, command: Command, words: Words, directory: Path, kind: str) -> None:
    name = words.need("the node's name")
    _check_new(dag, name, command.place)
    submit = words.need(f"the submit description of node {name}", keep_quotes=False)
    node = Node(name, kind, command.place, submit, directory, command.inline)
    while option := words.next():
        if option.upper() == "DIR":
            node.directory /= words.need("the directory after DIR", keep_quotes=False)
        elif option.upper() == "NOOP":
            node.is_noop = True
        elif option.upper() != "DONE":
            raise BadDag(command.place, f"{option!r} after node {name} is not DIR, NOOP or DONE")
    dag.nodes[name] = node


def _lift_splices(dag: Dag) -> None:
    for name, splice in dag._splices.items():
        for node in splice.nodes.values():
            node.name = f"{name}{_SPLICE_SEPARATOR}{node.name}"
            dag.nodes[node.name] = node
        dag.dependencies += splice.dependencies
        dag.files += splice.files
        for key, text in splice.descriptions.items():
            dag.descriptions.setdefault(key, text)
        dag.has_splices = True
    dag._splices.clear()


def _selected(dag: Dag, words: Words, place: Place) -> list[Node]:
    name = words.need("the node's name")
    nodes = dag.select(name)
    if not nodes and name.upper() != ALL_NODES:
        raise BadDag(place, f"there is no node {name}")
    return nodes


def _read_about_node(dag: Dag, command: Command, words: Words) -> None:
    _selected(dag, words, command.place)


def _read_script(dag: Dag, command: Command, words: Words) -> None:
    defer = debug = None
    while (word := words.take_if("DEFER", "DEBUG", "PRE", "POST", "HOLD")) in ("DEFER", "DEBUG"):
        if word == "DEFER":
            status = words.need_number("the exit status of DEFER")
            defer = status, words.need_number("the seconds of DEFER")
        else:
            debug = words.need("the file of DEBUG"), words.need("the stream of DEBUG")
    if not word:
        raise BadDag(command.place, "SCRIPT needs PRE, POST or HOLD before the node's name")
    nodes = _selected(dag, words, command.place)
    text = words.remaining()
    if not text:
        raise BadDag(command.place, "SCRIPT names no program")
    for node in nodes:
        node.scripts[word] = Script(command.place, word, text, defer, debug)


def _read_vars(dag: Dag, command: Command, words: Words) -> None:
    nodes = _selected(dag, words, command.place)
    words.take_if("APPEND", "PREPEND")
    pairs = {}
    while (pair := words.next_pair()) is not None:
        pairs[pair[0]] = pair[1]
    if not pairs:
        raise BadDag(command.place, "VARS sets no variable")
    for node in nodes:
        node.variables.update(pairs)


def _read_pre_skip(dag: Dag, command: Command, words: Words) -> None:
    nodes = _selected(dag, words, command.place)
    status = words.need_number("the exit status of PRE_SKIP")
    for node in nodes:
        node.pre_skip = status


def _read_abort_on(dag: Dag, command: Command, words: Words) -> None:
    nodes = _selected(dag, words, command.place)
    status = words.need_number("the exit status of ABORT-DAG-ON")
    for node in nodes:
        node.abort_on = status, command.place


def _read_weak(dag: Dag, command: Command, words: Words) -> None:
    if not words.take_if("PARENT"):
        raise BadDag(command.place, "WEAK needs PARENT after it")
    _read_parent(dag, command, words)


def _read_parent(dag: Dag, command: Command, words: Words) -> None:
    parents: list[Node] = []
    children: list[Node] = []
    side, is_parent = parents, True
    while word := words.next():
        if word.upper() == "CHILD" and is_parent:
            side, is_parent = children, False
        elif word in dag._splices:
            splice = dag._splices[word].nodes.values()
            side += [n for n in splice if not (n.has_children if is_parent else n.has_parents)]
        elif word in dag.nodes:
            side.append(dag.nodes[word])
        else:
            raise BadDag(command.place, f"there is no node {word}")
    if is_parent:
        raise BadDag(command.place, "PARENT has no CHILD after it")
    _connect(dag, command.place, parents, children)


def _connect(dag: Dag, place: Place, parents: Iterable[Node], children: Iterable[Node]) -> None:
    dependency = Dependency(place, tuple(dict.fromkeys(parents)), tuple(dict.fromkeys(children)))
    if not dependency.parents or not dependency.children:
        raise BadDag(place, "a dependency needs a parent and a child")
    for node in dependency.parents:
        node.has_children = True
    for node in dependency.children:
        node.has_parents = True
    dag.dependencies.append(dependency)


def _read_pin(dag: Dag, command: Command, words: Words) -> None:
    nodes = _selected(dag, words, command.place)
    number = words.need_number("the pin's number")
    dag._pins.setdefault((command.keyword, number), []).extend(nodes)


def _read_connect(dag: Dag, command: Command, words: Words) -> None:
    splices = []
    for what in ("the splice before", "the splice after"):
        name = words.need(what)
        if name not in dag._splices:
            raise BadDag(command.place, f"there is no splice {name}")
        splices.append(dag._splices[name])
    before, after = splices
    outs = {number for kind, number in before._pins if kind == "PIN_OUT"}
    ins = {number for kind, number in after._pins if kind == "PIN_IN"}
    if not outs or outs != ins:
        raise BadDag(command.place, "the splices' PIN_OUT and PIN_IN do not match")
    for number in sorted(outs):
        parents, children = before._pins["PIN_OUT", number], after._pins["PIN_IN", number]
        _connect(dag, command.place, parents, children)


def _check_acyclic(dag: Dag) -> None:
    """Raise BadDag with one cycle; linear in the words of the PARENT commands."""
    waits = {id(d): len(d.parents) for d in dag.dependencies}
    leads: dict[Node, list[Dependency]] = {}
    comes: dict[Node, int] = dict.fromkeys(dag.nodes.values(), 0)
    for dependency in dag.dependencies:
        for node in dependency.parents:
            leads.setdefault(node, []).append(dependency)
        for node in dependency.children:
            comes[node] += 1
    free = [node for node, count in comes.items() if not count]
    for node in free:
        for dependency in leads.get(node, ()):
            waits[id(dependency)] -= 1
            if waits[id(dependency)]:
                continue
            for child in dependency.children:
                comes[child] -= 1
                if not comes[child]:
                    free.append(child)
    if len(free) == len(comes):
        return
    stuck = set(comes).difference(free)
    before = {c: d for d in _still_waiting(dag, waits) for c in d.children if c in stuck}
    walk = [next(iter(before))]
    while walk.count(walk[-1]) < 2:
        walk.append(next(n for n in before[walk[-1]].parents if n in stuck))
    cycle = walk[walk.index(walk[-1]) + 1 :][::-1]
    # The line to be blamed is the one that closed the cycle.
    closing = max(cycle, key=lambda node: dag.dependencies.index(before[node]))
    cycle = [*cycle[cycle.index(closing) :], *cycle[: cycle.index(closing)], closing]
    names = " -> ".join(node.name for node in cycle)
    raise BadDag(before[closing].place, f"{names} is a cycle, so none of them could ever run")


def _still_waiting(dag: Dag, waits: dict[int, int]) -> Iterator[Dependency]:
    return (dependency for dependency in dag.dependencies if waits[id(dependency)])
