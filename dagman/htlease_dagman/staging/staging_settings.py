"""What is kept beside a staging file: the workflow's identity, its server, its token's path.

`NAME.htlease.json` belongs to `NAME.toml`. It names the token's file and never holds the token.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig
from htlease_dagman.staging.engine import Adopted


@dataclass(frozen=True)
class WorkflowSettings:
    """Made once by `htlease stage init`, changed by `htlease stage adopt`."""

    workflow: str
    server: str
    token_file: Path
    #: Node -> what a person has said about its task.
    adopted: Mapping[str, Adopted] = field(default_factory=dict)


def settings_path(staging_file: Path) -> Path:
    """Return where the settings of a staging file are."""
    return staging_file.with_suffix(".htlease.json")


def read_settings(path: Path) -> WorkflowSettings:
    """Read the settings; raises BadConfig."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        adopted = {
            node: Adopted(task.get("task"), task.get("owned", False), task.get("unused_key"))
            for node, task in document.get("adopted", {}).items()
        }
        return WorkflowSettings(
            document["workflow"],
            document["server"],
            # Beside the settings, wherever a watcher finds them.
            path.parent / document["token_file"],
            adopted,
        )
    except OSError as error:
        raise BadConfig(
            f"{path}: {error.strerror}; `htlease stage init` makes it from the staging file"
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadConfig(
            f"{path}: cannot be read ({error}); run `htlease stage init` again"
        ) from None


def write_settings(path: Path, settings: WorkflowSettings) -> None:
    """Write the settings in one step: a watcher may read them at any moment."""
    document = {
        "workflow": settings.workflow,
        "server": settings.server,
        "token_file": os.path.relpath(settings.token_file, path.parent),
        "adopted": {
            node: {
                "task": task.external_id,
                "owned": task.is_owned,
                "unused_key": task.unused_key,
            }
            for node, task in settings.adopted.items()
        },
    }
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def read_secret(path: Path, what: str) -> str:
    """Return the text of a credential file that nobody else can read; raises BadConfig.

    The text is in no message.
    """
    try:
        found = path.stat()
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadConfig(f"{what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadConfig(f"{what} {path}: is not text") from None
    # Root reads for others, as when it sets a workflow up for its user.
    if os.getuid() != 0 and found.st_uid not in (os.getuid(), 0):
        raise BadConfig(f"{what} {path} belongs to user {found.st_uid}; it has to be your own file")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise BadConfig(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); run"
            f" `chmod 600 {path}`, and replace the credential if others may have seen it"
        )
    if not text:
        raise BadConfig(f"{what} {path} is empty")
    return text
