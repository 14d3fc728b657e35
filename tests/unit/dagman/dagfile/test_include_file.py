"""What is put beside a DAG: which node gets which lines, and settings that the scripts can read."""

from __future__ import annotations

import json
from pathlib import Path

from htlease_dagman.dagfile.include_file import (
    Instruments,
    Names,
    NodeJobs,
    Variables,
    include_text,
    settings_document,
    structure_document,
)
from htlease_dagman.dagfile.parser import Dag, read_dag
from htlease_dagman.scripts.dag_settings import read_settings
from htlease_dagman.scripts.invocation import DEFER, SKIP

DAG = """\
JOB A a.sub
JOB B b.sub
SUBDAG EXTERNAL G g.dag
FINAL F f.sub
PROVISIONER P p.sub
SERVICE V v.sub
SCRIPT DEFER 4 30 DEBUG own.log ALL PRE B check.sh $JOB $Failed_Count a$RETRY
SCRIPT POST F last.sh $DAG_STATUS
SCRIPT PRE P provide.sh
SCRIPT PRE V serve.sh
PRE_SKIP B 9
PARENT A CHILD B G
"""


def instruments(place: Path, **jobs: NodeJobs) -> Instruments:
    names = Names(place / "my.dag")
    return Instruments(names, "wf", "http://leases:1", Path("/bin/htlease-dag"), 60, jobs)


def dag(place: Path, text: str = DAG) -> Dag:
    (place / "my.dag").write_text(text)
    return read_dag(Path("my.dag"), place)


def lines(place: Path, text: str = DAG, **jobs: NodeJobs) -> list[str]:
    return include_text(dag(place, text), instruments(place, **jobs)).splitlines()


def test_all_nodes_get_scripts_a_skip_code_and_their_key(tmp_path: Path) -> None:
    found = "\n".join(lines(tmp_path, "JOB A a.sub\n")).replace(str(tmp_path), "D")
    assert found.partition("\n")[2] == (
        f"SCRIPT DEFER {DEFER} 60 DEBUG D/my.dag.htlease.log STDERR PRE ALL_NODES /bin/htlease-dag "
        "pre D/my.dag.htlease.json JOB $JOB RETRY $RETRY MAX_RETRIES $MAX_RETRIES DAGID $DAGID\n"
        f"SCRIPT DEFER {DEFER} 60 DEBUG D/my.dag.htlease.log STDERR POST ALL_NODES /bin/htlease-dag "
        "post D/my.dag.htlease.json JOB $JOB RETRY $RETRY MAX_RETRIES $MAX_RETRIES DAGID $DAGID "
        "JOBID $JOBID RETURN $RETURN\n"
        "SCRIPT DEBUG D/my.dag.htlease.log STDERR HOLD ALL_NODES /bin/htlease-dag hold "
        "D/my.dag.htlease.json JOB $JOB RETRY $RETRY MAX_RETRIES $MAX_RETRIES DAGID $DAGID "
        "JOBID $JOBID\n"
        f"PRE_SKIP ALL_NODES {SKIP}\n"
        'VARS ALL_NODES APPEND My.HTLeaseKey="\\"wf/$(JOB)$(htlease_proc)\\"" '
        'My.HTLeaseURL="\\"http://leases:1\\""'
    )


def test_a_node_with_a_script_keeps_its_seconds_and_output_and_passes_its_macros(
    tmp_path: Path,
) -> None:
    (line,) = [line for line in lines(tmp_path) if " PRE B " in line]
    assert line.startswith(f"SCRIPT DEFER {DEFER} 30 DEBUG own.log ALL PRE B /bin/htlease-dag pre ")
    assert line.endswith(" DAGID $DAGID FAILED_COUNT $FAILED_COUNT")


def test_the_final_node_is_named_and_service_nodes_keep_their_own_scripts(tmp_path: Path) -> None:
    found = lines(tmp_path)
    last = [line.split() for line in found if " F " in line]
    assert [words[0] for words in last] == [
        "SCRIPT",
        "SCRIPT",
        "SCRIPT",
        "PRE_SKIP",
        "VARS",
        "SCRIPT",
    ]
    # The user's POST script wants the first, ours all of them.
    wanted = ["DAG_STATUS", "DONE_COUNT", "NODE_COUNT"]
    assert last[-1][-6:] == [word for name in wanted for word in (name, f"${name}")]
    (pre,) = [words for words in last if words[:2] == ["SCRIPT", "DEFER"] and "PRE" in words]
    assert pre[-2:] == ["DAG_STATUS", "$DAG_STATUS"]
    of_pre = [line for line in found if " PRE " in line and "DAG_STATUS" in line]
    assert of_pre == [" ".join(pre)]
    of_users = "FINAL F f.sub\nSCRIPT PRE F first.sh $DAG_STATUS\n"
    assert lines(tmp_path, of_users)[-1].count("$DAG_STATUS") == 1
    assert "SCRIPT PRE P provide.sh" in found
    assert not [line for line in found if " V " in line]


def test_only_a_dag_with_splices_includes_the_file_that_makes_them_known(tmp_path: Path) -> None:
    (tmp_path / "in.dag").write_text("JOB X x.sub\nSCRIPT POST X own.sh\n")
    found = lines(tmp_path, "SPLICE S in.dag\n")
    assert found[1] == f"INCLUDE {tmp_path}/my.dag.htlease.splices"
    assert [line for line in found if " POST S+X " in line]
    assert not [line for line in lines(tmp_path) if line.startswith("INCLUDE")]


def test_several_jobs_get_a_number_and_values_are_quoted_as_dagman_reads_them(
    tmp_path: Path,
) -> None:
    variables = Variables({"a": "$(b)"}, {"My.C": '"x\\y"', "d": "1"})
    found = lines(tmp_path, A=NodeJobs(3), B=NodeJobs(1, variables))
    assert [line for line in found if line.startswith(("VARS A ", "VARS B "))] == [
        'VARS A APPEND htlease_proc=".$(ProcId)"',
        'VARS B PREPEND a="$(b)"',
        'VARS B APPEND My.C="\\"x\\\\y\\"" d="1"',
    ]


def test_scripts_can_read_the_settings(tmp_path: Path) -> None:
    read = dag(tmp_path)
    given = instruments(tmp_path, A=NodeJobs(3))
    given.names.settings.write_text(json.dumps(settings_document(read, given)))
    settings = read_settings(str(given.names.settings))
    assert (settings.workflow, settings.server) == ("wf", "http://leases:1")
    assert settings.token_file == str(given.names.token)
    assert settings.state_directory == str(given.names.notes)
    own = settings.scripts("B")
    assert own.pre == ["check.sh", "$JOB", "$Failed_Count", "a$RETRY"]
    assert (own.pre_defer, own.pre_skip, own.post_defer) == (4, 9, None)
    assert settings.scripts("F").post == ["last.sh", "$DAG_STATUS"]
    assert settings.scripts("A").jobs == 3
    kinds = {name: settings.scripts(name).kind for name in read.nodes}
    assert kinds == {
        "A": "job",
        "B": "job",
        "G": "subdag",
        "F": "final",
        "P": "provisioner",
        "V": "service",
    }
    assert not settings.scripts("P").pre
    nodes = {
        name: settings.is_subjob(name) for name in ("A", "P", "V", "S+_condor_join_node0", "Z")
    }
    assert nodes == {"A": True, "P": False, "V": False, "S+_condor_join_node0": False, "Z": True}


def test_the_structure_has_each_dependency_once(tmp_path: Path) -> None:
    structure = structure_document(dag(tmp_path), "abc", {"sub": "inner-run"})
    assert structure["dag_sha256"] == "abc"
    assert structure["nodes"]["G"] == "subdag"
    assert structure["dependencies"] == [{"parents": ["A"], "children": ["B", "G"]}]
