"""`NAME.htlease.json` beside a DAG: what the scripts of its nodes have to know.

Written by `htlease dag instrument`, read at the start of every script on the access point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig

VERSION = 1
_SUFFIX = ".json"


@dataclass(frozen=True)
class NodeScripts:
    """The scripts that the user gave one node, which ours run in their place; and what it is."""

    #: As they stand in the DAG, DAGMan's macros included; empty: none.
    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    #: The exit status of the user's PRE script that the DAG's own PRE_SKIP names.
    pre_skip: int | None = None
    #: The exit status after which the user's script is to run again later (SCRIPT DEFER).
    pre_defer: int | None = None
    post_defer: int | None = None
    #: `job`, `subdag`, `final`, `provisioner` or `service`.
    kind: str = "job"
    #: How many jobs it queues; with more than one, job N is the subjob `NODE.N`.
    jobs: int = 1
    #: DAGMan submits no job for it.
    is_noop: bool = False


@dataclass(frozen=True)
class Settings:
    """One DAG's settings."""

    path: Path
    workflow: str
    server: str
    token_file: Path
    nodes: Mapping[str, NodeScripts] = field(default_factory=dict)
    ttl_seconds: float = 120.0
    #: How long one script may wait for a server that does not answer.
    wait_server_seconds: float = 10.0
    #: How often the script of one try may be put off before its node fails.
    deferrals_max: int = 360
    #: How long a node's job may use its token; the DAG's own token ends it too.
    job_token_seconds: float = 30 * 86400.0

    @property
    def state_directory(self) -> Path:
        """Where scripts leave tokens and notes: `NAME.htlease.d` beside the settings."""
        return self.path.with_name(self.path.name[: -len(_SUFFIX)] + ".d")

    def job_token_file(self, node: str) -> Path:
        """The token that the job of a node carries; the wrapper looks for a file of this name."""
        return self.state_directory / "tokens" / node / "htlease.token"

    def token(self) -> str:
        """Return the workflow's token; raises BadConfig."""
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(
                f"token file {self.token_file}: {error}; run `htlease dag instrument` again"
            ) from None


def read_settings(path: Path) -> Settings:
    """Read settings; raises BadConfig naming what cannot be used."""
    path = path.absolute()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _settings(path, document)
    except OSError as error:
        why = str(error.strerror)
    except KeyError as error:
        why = f"has no {error}"
    except (ValueError, TypeError, AttributeError) as error:
        why = str(error)
    raise BadConfig(f"{path}: {why}; run `htlease dag instrument` on the DAG again")


def _settings(path: Path, document: Mapping[str, Any]) -> Settings:
    if path.suffix != _SUFFIX or document["version"] != VERSION:
        raise ValueError(f"is no settings file of version {VERSION}")
    nodes = {name: _scripts(given) for name, given in document.get("nodes", {}).items()}
    known = {"ttl_seconds", "wait_server_seconds", "deferrals_max", "job_token_seconds"}
    return Settings(
        path,
        document["workflow"],
        document["server"],
        path.parent / document["token_file"],
        nodes,
        **{name: document[name] for name in known & document.keys()},
    )


def _scripts(given: Mapping[str, Any]) -> NodeScripts:
    argvs = {kind: tuple(given[kind]) for kind in ("pre", "post", "hold") if kind in given}
    return NodeScripts(**{**given, **argvs})
