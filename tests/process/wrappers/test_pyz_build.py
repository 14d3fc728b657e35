"""The one file: the same bytes twice, and a Python that is too old."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]

#: Real ones are used where pyenv has them.
TOO_OLD = ("3.6", "3.7", "3.8")
_PRETEND = (
    "import runpy, sys; sys.version_info = (3, 6, 8); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def test_two_builds_are_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.pyz"
    subprocess.run(
        [sys.executable, PROJECT / "wrappers" / "build_pyz.py", "--output", second],
        check=True,
        env={**os.environ, "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7"},
        stdout=subprocess.DEVNULL,
    )
    assert second.read_bytes() == pyz.read_bytes()


def test_it_is_executable_and_a_jobs_pythonpath_does_not_break_it(
    pyz: Path, tmp_path: Path
) -> None:
    for module in ("json", "argparse", "htlease", "typing"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('not for the wrapper')")
    done = subprocess.run(
        [pyz, "version"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("htlease-ep ")


def test_it_runs_without_anything_installed(pyz: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", pyz, "version"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("htlease-ep ")


def test_it_carries_the_licences_of_what_it_bundles(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    assert {"licenses/tenacity.txt", "licenses/tomli.txt"} <= set(names)


def test_the_start_parses_on_any_python_3() -> None:
    text = (PROJECT / "wrappers" / "htlease_wrapper" / "__main__.py").read_text()
    ast.parse(text, feature_version=(3, 4))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--ttl", "60", "--", "sh", "-c", "exit 85"], 85, "the payload runs untracked"),
        (["run", "--plan", "plan.toml"], 78, "Python 3.6 is too old"),
        (["phase", "enter", "x"], 78, "Python 3.6 is too old"),
        (["run", "--", "nosuch-program"], 127, "cannot run the payload"),
        (["run", "--"], 127, "cannot run the payload"),
    ],
)
def test_a_python_that_is_too_old_does_not_cost_the_job(
    pyz: Path, arguments: list[str], code: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRETEND, pyz, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_is_imported_from_the_file_that_a_link_named_at_the_start(
    pyz: Path, tmp_path: Path
) -> None:
    """An upgrade swaps the link under wrappers at work, which import a part of theirs late."""
    deployed, link = tmp_path / "1.pyz", tmp_path / "htlease-ep.pyz"
    deployed.write_bytes(pyz.read_bytes())
    link.symlink_to(deployed)
    done = subprocess.run(
        [sys.executable, "-v", link, "version"], capture_output=True, text=True, check=True
    )
    ours = [line for line in done.stderr.splitlines() if "import 'htlease" in line]
    assert ours and not [line for line in ours if f"{deployed}/" not in line], ours


def test_a_compiled_copy_does_the_same_from_bytecode(pyz: Path, tmp_path: Path) -> None:
    copy = tmp_path / "htlease-ep.pyz"
    subprocess.run([sys.executable, pyz, "compile", copy], check=True)
    said = subprocess.run([sys.executable, pyz, "version"], capture_output=True, check=True).stdout
    assert subprocess.run([copy, "version"], capture_output=True, check=True).stdout[:11] == (
        b"htlease-ep "
    )
    # Sources that say something else are not looked at as long as the bytecode fits.
    changed = tmp_path / "changed.pyz"
    with zipfile.ZipFile(copy) as compiled, zipfile.ZipFile(changed, "w") as lying:
        for name in compiled.namelist():
            is_told = name == "htlease/version.py"
            lying.writestr(name, "VERSION = 'of the source'" if is_told else compiled.read(name))
    done = subprocess.run([sys.executable, changed, "version"], capture_output=True, check=True)
    assert done.stdout == said


def test_the_bytecode_of_another_python_is_passed_over(pyz: Path, tmp_path: Path) -> None:
    copy, foreign = tmp_path / "copy.pyz", tmp_path / "foreign.pyz"
    subprocess.run([sys.executable, pyz, "compile", copy], check=True)
    foreign.write_bytes(pyz.read_bytes()[: pyz.read_bytes().index(b"\n") + 1])
    with zipfile.ZipFile(copy) as compiled, zipfile.ZipFile(foreign, "a") as changed:
        for name in compiled.namelist():
            content = compiled.read(name)
            is_bytecode = name.endswith(".pyc")
            changed.writestr(name, b"\0\0\r\n" + content[4:] if is_bytecode else content)
    done = subprocess.run(
        [sys.executable, foreign, "version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("htlease-ep ")


@pytest.mark.parametrize(
    ("target", "says"),
    [("htlease-ep.pyz", "name another"), ("none/copy.pyz", "No such file or directory")],
)
def test_a_copy_that_cannot_be_written_is_said(
    pyz: Path, tmp_path: Path, target: str, says: str
) -> None:
    own = tmp_path / "htlease-ep.pyz"
    own.write_bytes(pyz.read_bytes())
    done = subprocess.run(
        [sys.executable, own, "compile", tmp_path / target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert says in done.stderr and "Traceback" not in done.stderr
    assert own.read_bytes() == pyz.read_bytes()


@pytest.mark.parametrize("version", TOO_OLD)
def test_a_real_python_that_is_too_old_runs_the_payload(pyz: Path, version: str) -> None:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = next(iter(pyenv.glob(f"{version}.*/bin/python{version}")), None)
    if found is None:
        pytest.skip(f"no python{version} here; pyenv can provide it")
    done = subprocess.run(
        [found, pyz, "run", "--", "sh", "-c", "exit 85"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 85
    assert f"Python {version} is too old" in done.stderr
    assert done.stderr.count("\n") == 1
