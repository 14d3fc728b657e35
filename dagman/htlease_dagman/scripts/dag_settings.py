"""`NAME.htlease.json` beside a DAG: what the scripts of its nodes have to know.

Written by `htlease dag instrument`, read at the start of every script on the access point.
"""

from __future__ import annotations

import json
import os

from htlease.errors import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = 1
#: Their jobs run in every submission of the DAG, so they are no subjobs.
SERVICE_KINDS = ("provisioner", "service")
#: Kind of the node that cleans up after a stage-in that has failed.
CLEAN_UP = "clean-up"
#: How names of nodes begin that DAGMan adds between many parents and many children.
_JOIN_NODE = "_condor_join_node"
_SUFFIX = ".json"


def is_join_node(node: str) -> bool:
    """Tell whether DAGMan made the node itself; in a splice it has the splice's name before it."""
    return node.rpartition("+")[2].startswith(_JOIN_NODE)


class NodeScripts:
    """The scripts that the user gave one node, which ours run in their place; and what it is."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        #: As they stand in the DAG, DAGMan's macros included; empty: none.
        self.pre: list[str] = given.get("pre", [])
        self.post: list[str] = given.get("post", [])
        self.hold: list[str] = given.get("hold", [])
        #: The exit status of the user's PRE script that the DAG's own PRE_SKIP names.
        self.pre_skip: int | None = given.get("pre_skip")
        #: The exit status after which the user's script is to run again later (SCRIPT DEFER).
        self.pre_defer: int | None = given.get("pre_defer")
        self.post_defer: int | None = given.get("post_defer")
        #: `job`, `subdag`, `final`, `clean-up`, `provisioner` or `service`.
        self.kind: str = given.get("kind", "job")
        #: How many jobs it queues; with more than one, job N is the subjob `NODE.N`.
        self.jobs: int = given.get("jobs", 1)
        #: DAGMan submits no job for it.
        self.is_noop: bool = given.get("is_noop", False)


class Settings:
    """One DAG's settings."""

    def __init__(self, path: str, document: Mapping[str, Any]) -> None:
        """Take what `document` says; raises KeyError, TypeError or ValueError."""
        if not path.endswith(_SUFFIX) or document["version"] != VERSION:
            raise ValueError(f"is no settings file of version {VERSION}")
        self.path = path
        self.workflow = str(document["workflow"])
        self.server = str(document["server"])
        self.token_file = os.path.join(os.path.dirname(path), document["token_file"])
        self._nodes: Mapping[str, Mapping[str, Any]] = document.get("nodes", {})
        #: How many nodes the DAG has that are done before its FINAL node: all but SERVICE nodes.
        self.node_count = int(document.get("node_count", 0))
        #: What has failed in a submission of the DAG stays so when DAGMan itself is started again,
        #: from the rescue DAG that it has just written.
        self.needs_submission = bool(document.get("needs_submission", False))
        self.ttl_seconds = float(document.get("ttl_seconds", 120))
        #: How long one script may wait for a server that does not answer.
        self.wait_server_seconds = float(document.get("wait_server_seconds", 10))
        #: How often the script of one try may be put off before its node fails.
        self.deferrals_max = int(document.get("deferrals_max", 360))
        #: How long a node's job may use its token; the DAG's own token ends it too.
        self.job_token_seconds = float(document.get("job_token_seconds", 30 * 86400))

    @property
    def state_directory(self) -> str:
        """Where scripts leave tokens and notes: `NAME.htlease.d` beside the settings."""
        return self.path[: -len(_SUFFIX)] + ".d"

    def job_token_file(self, node: str) -> str:
        """The token that the job of a node carries; the wrapper looks for a file of this name."""
        return os.path.join(self.state_directory, "tokens", node, "htlease.token")

    def scripts(self, node: str) -> NodeScripts:
        """The scripts that the user gave a node."""
        return NodeScripts(self._nodes.get(node, {}))

    def is_subjob(self, node: str) -> bool:
        """Tell whether a node to which ALL_NODES gave our scripts is one of the user's own work."""
        return not is_join_node(node) and self.scripts(node).kind not in SERVICE_KINDS

    def token(self) -> str:
        """Return the workflow's token; raises BadConfig."""
        try:
            with open(self.token_file, encoding="ascii") as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(
                f"token file {self.token_file}: {error}; run `htlease dag instrument` again"
            ) from None


def read_settings(path: str) -> Settings:
    """Read settings; raises BadConfig naming what cannot be used."""
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            return Settings(path, json.load(file))
    except OSError as error:
        why = str(error.strerror)
    except KeyError as error:
        why = f"has no {error}"
    except (ValueError, TypeError, AttributeError) as error:
        why = str(error)
    raise BadConfig(f"{path}: {why}; run `htlease dag instrument` on the DAG again")
