"""The `htlease` command where no subjob is meant: pictures, help, doctor, serve, submit."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.process.command_lab import NOTHING, Lab, clean_environment

from htlease_lab.pool.debian import unpacked
from htlease_lab.pool.instance import base_directory


def test_graph_draws_and_redraws_documents(lab: Lab, tmp_path: Path) -> None:
    plain, full = lab.ok("graph"), lab.ok("graph", "lifecycle", "--full")
    assert plain.startswith("stateDiagram-v2") and len(plain) < len(full)
    assert lab.ok("graph", "cts:nersc_jaws_job", "--format", "dot").startswith("digraph")
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: htlease graph staged -->\n<!-- end -->\n")
    assert "drawn anew" in lab.ok("graph", "--write", page)
    assert "stage_in --> compute" in page.read_text()
    assert "unchanged" in lab.ok("graph", "--write", page)


def test_svg_without_graphviz_says_what_to_install(lab: Lab, tmp_path: Path) -> None:
    refusal = lab.refused(78, "graph", "--format", "svg", more={"PATH": str(tmp_path)})
    assert "install the package graphviz" in refusal


def test_svg_is_drawn_by_graphviz(lab: Lab, tmp_path: Path) -> None:
    """Debian's graphviz, from a root of its own, so that the machine need not have it."""
    root = unpacked("bookworm", "graphviz", base_directory() / "roots" / "graphviz", print)
    dot = tmp_path / "dot"
    dot.write_text(f'#!/bin/sh\nexec /usr/sbin/chroot {root} dot "$@"\n')
    dot.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for name in ("lifecycle", "cts"):
        drawn = lab.ok("graph", name, "--full", "--format", "svg", more={"PATH": path})
        picture = ElementTree.fromstring(drawn)
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
        shown = {text.strip() for text in picture.itertext()}
        assert {"lifecycle": "abandoned", "cts": "upload_submitted"}[name] in shown


def test_help_groups_the_commands_and_version_prints_one(lab: Lab) -> None:
    shown = lab.ok("--help")
    assert [line for line in ("Look:", "Act:", "Set up:") if line in shown.splitlines()] == [
        "Look:",
        "Act:",
        "Set up:",
    ]
    assert re.fullmatch(r"htlease, version \S+\n", lab.ok("--version"))


def test_pool_passes_everything_on_to_the_pool(lab: Lab) -> None:
    assert "usage: htlease pool" in lab.ok("pool", "--help")
    done = lab.run("pool", "status", "--name", "neverstarted")
    assert done.returncode == 1 and "neverstarted is not up" in done.stderr


def test_doctor_finds_each_fault_and_says_what_to_do(lab: Lab, pyz: Path, tmp_path: Path) -> None:
    def checks(
        code: int, *arguments: str | Path, more: Mapping[str, str] = NOTHING
    ) -> dict[str, dict[str, str]]:
        done = lab.run("doctor", "--json", *arguments, more=more)
        assert done.returncode == code, done.stderr
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    found = checks(0, "--pyz", pyz)
    assert [found[name]["verdict"] for name in ("server", "token", "clock", "wrapper")] == [
        "ok"
    ] * 4
    assert found["server address"]["verdict"] == "warning"
    assert found["schedd"]["verdict"] == "warning"
    assert all(check["remedy"] for check in found.values() if check["verdict"] != "ok")

    named = checks(1, "--schedd", "nosuch")["schedd"]
    assert named["verdict"] == "problem" and named["remedy"]

    assert checks(1, "--server", "http://127.0.0.1:9")["server"]["verdict"] == "problem"
    wrong = tmp_path / "admin.token"
    wrong.write_text("not-the-token-at-all\n")
    assert checks(1, "--admin-token-file", wrong)["token"]["verdict"] == "problem"
    minted = lab.ok("token", "mint", "--workflow", "w").strip()
    others = {"XDG_STATE_HOME": str(tmp_path)}
    job_token = checks(0, more={"BEARER_TOKEN": minted, **others})
    assert "a token for one workflow only" in job_token["token"]["finding"]
    minted = lab.ok("token", "mint", "--role", "submitter", "--name", "ann").strip()
    found = checks(0, more={"BEARER_TOKEN": minted, **others})
    assert found["token"]["verdict"] == "ok" and "of its own" in found["token"]["finding"]
    broken = tmp_path / "htlease-ep.pyz"
    broken.write_text("raise SystemExit(1)\n")
    assert checks(1, "--pyz", broken)["wrapper"]["verdict"] == "problem"
    assert "What to do:" in lab.run("doctor").stdout


def test_a_server_without_authentication_needs_no_token(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "htlease_cli.cli", "serve", "--listen=127.0.0.1:0", "--no-auth"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        assert "WORKFLOW" in Lab(found[0], environment).ok("list")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_serve_refuses_the_world_without_authentication(lab: Lab) -> None:
    assert "loopback" in lab.refused(78, "serve", "--listen", "0.0.0.0:0", "--no-auth")


def test_the_admin_token_is_the_owners_alone(lab: Lab) -> None:
    token = Path(lab.environment["XDG_STATE_HOME"]) / "htlease" / "admin.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("code", "text", "more", "words"),
    [
        (78, 'executable = a\nMy.HTLeaseKey = "w/same"\nqueue 2\n', (), "are both w/same"),
        (78, "queue\n", ("--", "arguments"), "'arguments' is not NAME=VALUE"),
        (78, "queue\n", ("--", "-remote", "ap2"), "name it with --schedd"),
        (78, "queue\n", ("--", "-dry-run", "-"), "use --dry-run of htlease"),
        (78, "executable = /bin/true\nqueue\n", (), "condor_submit is not on PATH"),
    ],
)
def test_submit_refuses_before_anything_is_enrolled(
    lab: Lab, pyz: Path, tmp_path: Path, code: int, text: str, more: tuple[str, ...], words: str
) -> None:
    """What is wrong with the file itself `condor_submit` says; that needs an HTCondor."""
    here = {"PATH": str(tmp_path)}
    file = tmp_path / "a.sub"
    file.write_text(text)
    before = lab.ok("list")
    assert words in lab.refused(code, "submit", file, "--pyz", pyz, *more, more=here)
    assert lab.ok("list") == before
