"""DAG files are read as DAGMan reads them, and refused with file and line where it would refuse."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from htlease_dagman.dagfile.lexer import BadDag
from htlease_dagman.dagfile.parser import Dag, read_dag


def read(place: Path, text: str, **parts: str) -> Dag:
    """Read a DAG; `parts` are further files `NAME.dag`."""
    for name, part in parts.items():
        (place / f"{name}.dag").write_text(part)
    (place / "my.dag").write_bytes(text.encode("utf-8", "surrogateescape"))
    return read_dag(Path("my.dag"), place)


def edges(dag: Dag) -> set[tuple[str, str]]:
    return {
        (parent.name, child.name)
        for dependency in dag.dependencies
        for parent in dependency.parents
        for child in dependency.children
    }


def test_keywords_have_no_case_and_lines_go_on_over_comments(tmp_path: Path) -> None:
    dag = read(tmp_path, "job A a.sub\r\nJob B b.sub\r\nparent A \\\r\n# why\r\n\r\n  Child B\r\n")
    assert edges(dag) == {("A", "B")}


def test_commands_may_name_nodes_that_are_made_below(tmp_path: Path) -> None:
    dag = read(tmp_path, "PARENT A CHILD B\nRETRY B 3\nJOB A a.sub\nJOB B b.sub\n")
    assert edges(dag) == {("A", "B")}


def test_the_last_of_two_scripts_wins_and_keeps_its_own_options(tmp_path: Path) -> None:
    dag = read(
        tmp_path,
        "JOB A a.sub\nSCRIPT PRE A first.sh\n"
        "Script Defer 4 30 Debug log.txt ALL Pre A second.sh  it's $RETRY\nPRE-SKIP A 9\n",
    )
    script = dag.nodes["A"].scripts["PRE"]
    assert script.command == "second.sh  it's $RETRY"
    assert (script.defer, script.debug) == ((4, 30), ("log.txt", "ALL"))
    assert dag.nodes["A"].pre_skip == 9


def test_inline_descriptions_are_no_commands(tmp_path: Path) -> None:
    dag = read(
        tmp_path,
        "JOB A {\n executable = /bin/true\n JOB = 1\n}\n"
        "JOB B @=end\nqueue 2\n} not yet\n@end NOOP\n"
        "SUBMIT-DESCRIPTION shared {\nqueue 3\n}\nJOB C shared DONE\n",
    )
    assert dag.nodes["A"].inline == "executable = /bin/true\nJOB = 1\n"
    assert dag.nodes["B"].inline == "queue 2\n} not yet\n"
    assert dag.nodes["B"].is_noop and not dag.nodes["A"].is_noop
    assert dag.descriptions == {"shared": "queue 3\n"}


def test_values_of_variables_come_without_their_quotes(tmp_path: Path) -> None:
    dag = read(
        tmp_path,
        'JOB A a.sub\nVARS A APPEND x="one two" +Y = "\\"three\\"" z="back\\\\slash"\n',
    )
    assert dag.nodes["A"].variables == {"x": "one two", "+Y": '"three"', "z": "back\\slash"}


def test_nodes_of_splices_have_their_names_and_directories(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "inner.dag").write_text("JOB X x.sub\nJOB Y y.sub\nPARENT X CHILD Y\n")
    dag = read(
        tmp_path,
        "JOB A a.sub\nSPLICE S outer.dag\nPARENT A CHILD S\nPARENT S CHILD Z\nJOB Z z.sub\n",
        outer="SPLICE T inner.dag DIR deep\nINCLUDE empty.dag\nSCRIPT POST T+X found.sh\n",
        empty="",
    )
    assert edges(dag) == {("A", "S+T+X"), ("S+T+X", "S+T+Y"), ("S+T+Y", "Z")}
    assert dag.nodes["S+T+X"].directory == tmp_path / "deep"
    assert dag.nodes["S+T+X"].scripts["POST"].command == "found.sh"


def test_all_nodes_means_the_ordinary_nodes_known_at_that_point(tmp_path: Path) -> None:
    dag = read(
        tmp_path,
        "SCRIPT PRE ALL_NODES all.sh\nJOB A a.sub\nSUBDAG EXTERNAL G g.dag\nFINAL F f.sub\n"
        "SERVICE V v.sub\nPROVISIONER P p.sub\nSPLICE S in.dag\nINCLUDE more.dag\n",
        **{"in": "JOB X x.sub\n", "more": "JOB L l.sub\n"},
    )
    assert {node.name for node in dag.nodes.values() if node.scripts} == {"A", "G"}
    assert {node.kind for node in dag.nodes.values()} == {
        "job", "subdag", "final", "service", "provisioner",
    }  # fmt: skip


def test_pins_connect_splices(tmp_path: Path) -> None:
    dag = read(
        tmp_path,
        "SPLICE S out.dag\nSPLICE T in.dag\nCONNECT S T\n",
        out="JOB A a.sub\nJOB B b.sub\nPIN_OUT A 1\nPIN_OUT B 2\n",
        **{"in": "JOB C c.sub\nJOB D d.sub\nPIN_IN C 1\nPIN_IN D 2\n"},
    )
    assert edges(dag) == {("S+A", "T+C"), ("S+B", "T+D")}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("JOB A a.sub\nJOBS B b.sub\n", 2, "'JOBS' is not a command"),
        ("\ufeffJOB A a.sub\n", 1, "is not a command"),
        ("JOB A a.sub\nPARENT A CHILD B\n", 2, "no node B"),
        ("JOB A a.sub\nPARENT A B\n", 2, "no node B"),
        ("JOB A a.sub\nPARENT A\n", 2, "no CHILD"),
        ("JOB A a.sub\nPARENT A CHILD\n", 2, "needs a parent and a child"),
        ("JOB A a.sub\nJOB A b.sub\n", 2, "there is a node A already (my.dag, line 1)"),
        ("JOB A a.sub\nSCRIPT PRE Z x.sh\n", 2, "no node Z"),
        ("JOB A a.sub\nSCRIPT A x.sh\n", 2, "needs PRE, POST or HOLD"),
        ("JOB A a.sub\nSCRIPT DEFER x 1 PRE A x.sh\n", 2, "exit status of DEFER"),
        ("JOB A a.sub\nSCRIPT PRE A\n", 2, "names no program"),
        ('JOB A a.sub\nVARS A x="1\n', 2, "never closed"),
        ("JOB A a.sub\nVARS A x\n", 2, "is not followed by"),
        ("JOB A a.sub\nVARS A\n", 2, "sets no variable"),
        ("JOB A a.sub\nPRE_SKIP A two\n", 2, "is no number"),
        ("JOB A\n", 1, "submit description of node A is missing"),
        ("JOB A a.sub LATER\n", 1, "not DIR, NOOP or DONE"),
        ("JOB A a.sub DIR\n", 1, "directory after DIR is missing"),
        ("SPLICE S fin.dag DIR none\n", 1, "fin.dag: No such file"),
        ("JOB PARENT a.sub\n", 1, "cannot be a name"),
        ("JOB A {\nexecutable = x\n", 1, "has no end (})"),
        ("JOB A a.sub\nRETRY A 1 \\\n", 2, "no line follows"),
        ("SUBDAG A a.dag\n", 1, "EXTERNAL"),
        ("JOB A a.sub\nSPLICE S none.dag\n", 2, "none.dag: No such file"),
        ("JOB A a.sub\nINCLUDE my.dag\n", 2, "includes itself"),
        ("SPLICE S fin.dag\n", 1, "has a FINAL node"),
        ("# nothing\n", 1, "no node in this DAG"),
        (
            "JOB A a.sub\nJOB B b.sub\nPARENT A CHILD B\nJOB C c.sub\nPARENT B CHILD C\nPARENT C CHILD B\n",
            6,
            "B -> C -> B is a cycle",
        ),
        ("JOB A a.sub\nPARENT A CHILD A\n", 2, "A -> A is a cycle"),
    ],
)
def test_what_dagman_would_refuse_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    (tmp_path / "fin.dag").write_text("FINAL F f.sub\n")
    with pytest.raises(BadDag) as refused:
        read(tmp_path, text)
    message = str(refused.value)
    assert message.startswith(f"my.dag, line {line}: "), message
    assert words in message


def test_an_error_in_a_splice_names_the_splices_file(tmp_path: Path) -> None:
    with pytest.raises(BadDag, match="in.dag, line 2: there is no node Q"):
        read(tmp_path, "SPLICE S in.dag\n", **{"in": "JOB X x.sub\nRETRY Q 1\n"})


def test_a_long_chain_and_a_wide_bundle_are_read_without_recursion_or_a_product(
    tmp_path: Path,
) -> None:
    names = [f"n{number}" for number in range(3000)]
    lines = [f"JOB {name} a.sub" for name in names]
    lines += [f"PARENT {a} CHILD {b}" for a, b in itertools.pairwise(names)]
    lines += [f"JOB wide{n} a.sub" for n in range(3000)]
    lines += [f"JOB tail{n} a.sub" for n in range(3000)]
    wide, tail = (" ".join(f"{kind}{n}" for n in range(3000)) for kind in ("wide", "tail"))
    dag = read(tmp_path, "\n".join([*lines, f"PARENT {wide} CHILD {tail}"]) + "\n")
    assert len(dag.nodes) == 9000
    assert len(dag.dependencies) == 3000


def test_bytes_that_are_no_text_may_stand_in_comments(tmp_path: Path) -> None:
    assert list(read(tmp_path, "# caf\udce9\nJOB A a.sub\n").nodes) == ["A"]
