"""What the server keeps of a DAG's files, so that the DAG can be made again; no secrets.

Kept are the DAG, its splices and includes, and the submit files; not what they name: programs and
data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from htlease.wire.protocol import BODY_MAX_BYTES
from htlease_dagman.dagfile.parser import Dag
from htlease_dagman.scripts.dag_settings import SERVICE_KINDS

#: Of the one request that takes a workflow's document, left for plan and labels.
_RESERVE_BYTES = 64 * 1024
#: What stands where a secret was.
REMOVED = "REMOVED-BY-HTLEASE"

_ENVIRONMENT = re.compile(r"^\s*(?:environment2?|env|(?:\+|MY\.)Env\w*)\s*=", re.IGNORECASE)
_SECRET = re.compile(
    r"(\b\w*(?:SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|PRIVATE)\w*?(?<!_FILE)(?<!_PATH)(?<!_DIR)"
    r"(?<!_URL)=)(?!\$\()([^\s;\"']+|'[^']*')",
    re.IGNORECASE,
)


def kept_files(dag: Dag, submit_directory: Path, beside: object) -> dict[str, Any]:
    """Return the texts of a DAG's files by path, and why others are left out.

    `beside` is what has to go into the same request.

    Paths are relative to where condor_submit_dag is called, where they are below it.
    """
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    left_bytes = BODY_MAX_BYTES - _RESERVE_BYTES - len(json.dumps(beside))
    for path in _files(dag):
        name = kept_name(path, submit_directory)
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            left_out[name] = getattr(error, "strerror", None) or "is not UTF-8"
            continue
        size_bytes = len(json.dumps(text))
        if size_bytes > left_bytes:
            left_out[name] = "too large to be kept on the server"
            continue
        left_bytes -= size_bytes
        texts[name] = without_secrets(text)
    return {"files": texts, "left_out": left_out}


def _files(dag: Dag) -> Iterator[Path]:
    submit_files = (
        node.directory / node.submit
        for node in dag.nodes.values()
        if node.inline is None
        and node.kind not in ("subdag", *SERVICE_KINDS)
        and node.submit not in dag.descriptions
    )
    yield from dict.fromkeys([*dag.files, *submit_files])


def kept_name(path: Path, submit_directory: Path) -> str:
    """Return the name under which a file is kept."""
    absolute = path.absolute()
    if absolute.is_relative_to(submit_directory):
        return str(absolute.relative_to(submit_directory))
    return str(absolute)


def without_secrets(text: str) -> str:
    """Return a file's text without the values of what looks like a secret in an environment."""
    lines = text.splitlines(keepends=True)
    return "".join(
        _SECRET.sub(rf"\1{REMOVED}", line) if _ENVIRONMENT.match(line) else line for line in lines
    )
