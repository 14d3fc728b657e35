"""The table of calls, and the way from a path to a call.

Paths are matched as they were sent, part by part, and decoded after that: a name that contains
an encoded slash is a bad name and not two parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from htlease.errors import InvalidField
from htlease.wire.protocol import PHASE_CALLS, SUBJOB_CALLS

_SUBJOB = "/v1/workflows/{workflow}/subjobs/{subjob}"


class Route(NamedTuple):
    """One call: where it is, and what the application calls it."""

    method: str
    template: str
    name: str
    summary: str


ROUTES: tuple[Route, ...] = (
    *(
        Route("POST", f"{_SUBJOB}/phases/{{phase}}/{call}", call, (command.__doc__ or "").strip())
        for call, command in PHASE_CALLS.items()
    ),
    *(
        Route("POST", f"{_SUBJOB}/{call}", call, (command.__doc__ or "").strip())
        for call, command in SUBJOB_CALLS.items()
    ),
    Route("GET", _SUBJOB, "subjob", "Everything known of one subjob, every attempt included."),
    Route("GET", f"{_SUBJOB}/history", "history", "What happened to a subjob, in order."),
    Route("GET", "/v1/subjobs", "find", "Subjobs by any ID they were ever known by."),
    Route("GET", "/v1/workflows", "workflows", "All workflows."),
    Route("GET", "/v1/workflows/{workflow}", "workflow", "A workflow and its subjobs."),
    Route("PUT", "/v1/workflows/{workflow}", "put-workflow", "Make or change a workflow."),
    Route("POST", "/v1/tokens", "mint", "Make a token: of a job, a workflow or a role."),
    Route("GET", "/v1/tokens", "tokens", "The tokens that were made for more than one subjob."),
    Route("POST", "/v1/tokens/revoke", "revoke", "Revoke tokens, at once."),
    Route("GET", "/v1/keys", "keys", "The signing keys, by their IDs; the first one signs."),
    Route("POST", "/v1/keys/rotate", "rotate-key", "Make a new signing key; the others verify on."),
    Route("GET", "/v1/audit", "audit", "What was done to tokens, keys, workflows, maintenance."),
    Route("GET", "/v1/maintenance", "maintenance", "The times in which no lease runs out."),
    Route("PUT", "/v1/maintenance", "put-maintenance", "Start, change or end such a time."),
    Route("POST", "/v1/maintenance/announce", "announce", "Announce one for later, or move it."),
    Route("POST", "/v1/maintenance/withdraw", "withdraw", "Take an announced one back."),
    Route("GET", "/v1/flags", "flags", "Flags that were ever changed, or those of a workflow."),
    Route("POST", "/v1/trim", "trim", "Delete some of what has been closed for long."),
    Route("PUT", "/v1/flags/{flag}", "put-flag", "Raise or lower a flag."),
    Route("GET", "/healthz", "healthz", "The process answers."),
    Route("GET", "/readyz", "readyz", "The store takes writes."),
    Route("GET", "/metrics", "metrics", "Counters in the text format of Prometheus."),
    Route("GET", "/openapi.json", "openapi", "This description."),
    Route("GET", "/", "home", "What this is."),
)

_PARAMETER = b"{}"
_METHODS = b"methods"
_Node = dict[bytes, Any]


class Found(NamedTuple):
    """A path that some call has."""

    #: Method -> route.
    methods: Mapping[bytes, Route]
    #: The variable parts, still encoded, in order.
    parts: tuple[bytes, ...]


def _tree() -> _Node:
    root: _Node = {}
    for route in ROUTES:
        node = root
        for part in route.template.encode().split(b"/")[1:]:
            node = node.setdefault(_PARAMETER if part.startswith(b"{") else part, {})
        # No path part can contain a slash, so this key cannot be taken for one.
        node.setdefault(b"/" + _METHODS, {})[route.method.encode()] = route
    return root


_TREE = _tree()
_WORKFLOWS = [b"", b"v1", b"workflows"]


def _methods_at(template: str) -> Mapping[bytes, Route]:
    return {route.method.encode(): route for route in ROUTES if route.template == template}


#: The last part of the path of a subjob's calls -> what `find` gives for them.
_SUBJOB_CALLS = {call.encode(): _methods_at(f"{_SUBJOB}/{call}") for call in SUBJOB_CALLS}
_PHASE_CALLS = {
    call.encode(): _methods_at(f"{_SUBJOB}/phases/{{phase}}/{call}") for call in PHASE_CALLS
}


def find(raw_path: bytes) -> Found | None:
    """Return the calls at a path, or None when there are none."""
    parts = raw_path.split(b"/")
    # What nearly every request is for, without a walk through the tree.
    if len(parts) > 6 and parts[:3] == _WORKFLOWS and parts[4] == b"subjobs":
        if len(parts) == 7:
            methods = _SUBJOB_CALLS.get(parts[6])
            if methods is not None:
                return Found(methods, (parts[3], parts[5]))
        elif len(parts) == 9 and parts[6] == b"phases":
            methods = _PHASE_CALLS.get(parts[8])
            if methods is not None:
                return Found(methods, (parts[3], parts[5], parts[7]))
    return _walk(parts)


def _walk(path: list[bytes]) -> Found | None:
    node: _Node | None = _TREE
    parts = []
    for part in path[1:]:
        assert node is not None
        following = node.get(part)
        if following is None:
            following = node.get(_PARAMETER)
            if following is None:
                return None
            parts.append(part)
        node = following
    methods = node.get(b"/" + _METHODS) if node else None
    return None if methods is None else Found(methods, tuple(parts))


def decoded(field: str, part: bytes) -> str:
    """Return a path part as text; raises InvalidField when it is not UTF-8."""
    try:
        text = part.decode("ascii")
        return unquote(text, errors="strict") if "%" in text else text
    except UnicodeDecodeError:
        raise InvalidField(field, "is not percent-encoded UTF-8") from None
