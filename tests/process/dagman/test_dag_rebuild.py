"""A DAG made again from nothing but what the server knows of its workflow."""

from __future__ import annotations

import json
from pathlib import Path

from tests.process.command import htlease
from tests.serving import ServerProcess

DAG = "# mine\nJOB A sub/a.sub\nJOB B b.sub\nSPLICE S inner.splice\nPARENT A CHILD B S\n"
SPLICE = "JOB X b.sub\n"
A = 'executable = /bin/true\nenvironment = "MODE=fast MY_SECRET=hunter2 CERT_FILE=/c"\nqueue\n'
B = "executable = ./run.sh\narguments = token=$(JOB)\nqueue\n"
PROGRAM = "/opt/htlease/bin/htlease-dag"


def test_a_dag_is_rebuilt_from_its_export_without_its_secrets(
    server: ServerProcess, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    (place / "sub").mkdir(parents=True)
    texts = {"my.dag": DAG, "inner.splice": SPLICE, "sub/a.sub": A, "b.sub": B}
    for name, text in texts.items():
        (place / name).write_text(text)
    instrument = ("dag", "instrument", "my.dag", "--script", PROGRAM)
    htlease(server, *instrument, cwd=place)
    workflow = json.loads((place / "my.dag.htlease.json").read_text())["workflow"]
    server.command(f"{workflow}/A", "enroll", global_job_id="ap1#12.0#1", links={"task": "t-1"})
    exported = htlease(server, "workflow", "export", workflow)
    assert "hunter2" not in exported
    document = json.loads(exported)
    assert document["workflow"]["structure"]["dependencies"][0]["parents"] == ["A"]
    [a] = document["subjobs"]
    assert a["submissions"][0]["links"] == {"task": "t-1"}
    assert [event["event"] for event in a["history"]] == ["submission-enrolled"]

    export = tmp_path / "export.json"
    export.write_text(exported)
    made = tmp_path / "made"
    said = htlease(server, "dag", "rebuild", export, "--into", made)
    assert "sub/a.sub: put secrets back where it says REMOVED-BY-HTLEASE" in said
    assert "b.sub" not in said
    for name in ("my.dag", "inner.splice", "b.sub"):
        assert (made / name).read_text() == texts[name]
    assert (made / "sub/a.sub").read_text() == A.replace("hunter2", "REMOVED-BY-HTLEASE")
    assert f"is workflow {workflow} (" in htlease(server, *instrument, cwd=made)
    assert "is not empty" in htlease(server, "dag", "rebuild", export, "--into", made, status=78)


def test_files_that_do_not_fit_are_left_out_and_named(
    server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "big.sub").write_text("# " + "x" * 300_000 + "\nqueue\n")
    (tmp_path / "d.dag").write_text("JOB A big.sub\n")
    htlease(server, "dag", "instrument", "d.dag", "--script", PROGRAM, cwd=tmp_path)
    workflow = json.loads((tmp_path / "d.dag.htlease.json").read_text())["workflow"]
    structure = server.ask("GET", f"workflows/{workflow}")["structure"]
    assert list(structure["files"]) == ["d.dag"]
    assert structure["left_out"] == {"big.sub": "too large to be kept on the server"}


def test_what_is_no_export_is_refused_with_its_name(server: ServerProcess, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    said = htlease(server, "dag", "rebuild", bad, "--into", tmp_path / "x", status=78)
    assert "bad.json is not what `htlease workflow export` writes" in said
    server.ask("PUT", "workflows/no-dag", {"request_id": "r"})
    bad.write_text(htlease(server, "workflow", "export", "no-dag"))
    said = htlease(server, "dag", "rebuild", bad, "--into", tmp_path / "x", status=78)
    assert "holds no DAG" in said
