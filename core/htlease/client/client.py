"""The calls that the access point makes on the lease server, pages put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from htlease.client.connection import Connection
from htlease.errors import BadConfig, Refused, ServerUnavailable
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire import protocol
from htlease.wire.retry import Clock, send
from htlease.wire.transport import HttpTransport

if TYPE_CHECKING:
    from htlease.wire.transport import Transport

#: How long a command retries a server that does not answer.
PATIENCE_SECONDS = 2.0
PAGE_SIZE = 500

Document = dict[str, Any]


@dataclass
class LeaseServer:
    """Speaks to one server; every method raises Refused, ServerUnavailable or BadConfig."""

    transport: Transport
    url: str
    clock: Clock = field(default_factory=Clock)
    patience_seconds: float = PATIENCE_SECONDS

    @classmethod
    def at(cls, connection: Connection) -> LeaseServer:
        """Return the server of a connection; nothing is sent yet. Raises BadConfig."""
        token = connection.credential.token if connection.credential else None
        return cls(HttpTransport(connection.url, token), connection.url)

    def ready(self) -> None:
        """Return if the server answers and can write."""
        self._send("GET", "/readyz", "status")

    def workflows(self) -> Document:
        """Return every workflow in short: {"workflows": [...]}."""
        return self._all_pages(f"/{protocol.VERSION}/workflows", "workflows", "cursor")

    def may_list(self) -> bool:
        """Tell whether the token is for more than one workflow."""
        try:
            self._send("GET", f"/{protocol.VERSION}/workflows?limit=1", "workflows")
        except Refused as refused:
            if refused.code != "forbidden":
                raise
            return False
        return True

    def workflow(self, name: str) -> Document:
        """Return one workflow with all its subjobs in short."""
        return self._all_pages(protocol.workflow_path(name), "subjobs", "cursor")

    def subjob(self, key: SubjobKey) -> Document:
        """Return everything about one subjob but its history."""
        return self._send("GET", protocol.subjob_path(key), "status")

    def history(self, key: SubjobKey) -> Document:
        """Return a subjob's history, oldest first: {"events": [...]}."""
        return self._all_pages(f"{protocol.subjob_path(key)}/history", "events", "after")

    def find(self, identifier: str) -> Document:
        """Return the subjobs that know an ID: {"subjobs": [...]}."""
        path = f"/{protocol.VERSION}/subjobs?id={quote(identifier, safe='')}"
        return self._send("GET", path, "subjobs")

    def workflow_labels(self, name: str) -> dict[str, str]:
        """Return the labels of a workflow; {} when there is no such workflow yet."""
        try:
            path = f"{protocol.workflow_path(name)}?limit=1"
            labels: dict[str, str] = self._send("GET", path, "labels")["labels"]
        except Refused as refused:
            if refused.code != "not-found":
                raise
            return {}
        return labels

    def put_workflow(self, name: str, fields: Mapping[str, Any]) -> Document:
        """Make or change a workflow and return it."""
        body = {"request_id": self.clock.new_id(), **fields}
        return self._send("PUT", protocol.workflow_path(name), "workflow", body)

    def maintenance(self) -> Document:
        """Return the maintenance windows: {"open", "next", "windows"}."""
        return self._send("GET", f"/{protocol.VERSION}/maintenance", "windows")

    def put_maintenance(self, ends_in_seconds: float, reason: str | None) -> Document:
        """Start a window, or change the end of the open one; return all windows."""
        body: Document = {"ends_in_seconds": ends_in_seconds}
        if reason is not None:
            body["reason"] = reason
        return self._send("PUT", f"/{protocol.VERSION}/maintenance", "windows", body)

    def announce_maintenance(
        self, starts_at: str, until_at: str, reason: str | None, instead_of: str | None = None
    ) -> Document:
        """Announce a window (RFC 3339 instants), or move one; return all windows."""
        body = {"starts_at": starts_at, "until_at": until_at}
        if reason is not None:
            body["reason"] = reason
        if instead_of is not None:
            body["instead_of"] = instead_of
        return self._send("POST", f"/{protocol.VERSION}/maintenance/announce", "windows", body)

    def withdraw_maintenance(self, starts_at: str) -> Document:
        """Take an announced window back, named by its begin; return all windows."""
        body = {"starts_at": starts_at}
        return self._send("POST", f"/{protocol.VERSION}/maintenance/withdraw", "windows", body)

    def flags(self, workflow: str | None = None) -> Document:
        """Return the flags that were ever changed, or those that concern one workflow."""
        query = "" if workflow is None else f"?workflow={quote(workflow, safe='')}"
        return self._send("GET", f"/{protocol.VERSION}/flags{query}", "flags")

    def put_flag(self, name: str, is_up: bool, reason: str | None) -> Document:
        """Raise or lower a flag and return it."""
        body: Document = {"is_up": is_up}
        if reason is not None:
            body["reason"] = reason
        return self._send("PUT", f"/{protocol.VERSION}/flags/{quote(name, safe='')}", "name", body)

    def trim(self, older_than_seconds: float, after: int, dry_run: bool) -> Document:
        """Take one step of a trim, or say what it would take: {"workflows", "next"}."""
        body = {"older_than_seconds": older_than_seconds, "after": after, "dry_run": dry_run}
        return self._send("POST", f"/{protocol.VERSION}/trim", "workflows", body)

    def mint_token(
        self, workflow: str, subjob: str | None, ttl_seconds: float, **more: object
    ) -> Document:
        """Return a new token for a workflow or one subjob: {"token", "id", "expires_at"}."""
        given = {"workflow": workflow, "subjob": subjob, "ttl_seconds": ttl_seconds, **more}
        return self._post_tokens("", "token", given)

    def mint_role_token(
        self, role: str, workflows: Sequence[str], name: str | None, ttl_seconds: float
    ) -> Document:
        """Return a new token of a role; without workflows for all, or of a submitter its own."""
        given = {"role": role, "workflows": list(workflows) or None, "name": name}
        return self._post_tokens("", "token", {**given, "ttl_seconds": ttl_seconds})

    def revoke_tokens(self, **which: str | None) -> Document:
        """Revoke tokens: of an `id`, or of a `workflow` and perhaps `subjob`."""
        return self._post_tokens("/revoke", "revoked_at", which)

    def _post_tokens(self, what: str, field: str, given: Mapping[str, object]) -> Document:
        body = {name: value for name, value in given.items() if value is not None}
        return self._send("POST", f"/{protocol.VERSION}/tokens{what}", field, body)

    def tokens(self) -> Document:
        """Return the tokens made for more than one subjob, oldest first: {"tokens": [...]}."""
        return self._all_pages(f"/{protocol.VERSION}/tokens", "tokens", "after")

    def audit(self) -> Document:
        """Return what was done to the site itself, oldest first: {"deeds": [...]}."""
        return self._all_pages(f"/{protocol.VERSION}/audit", "deeds", "after")

    def keys(self) -> Document:
        """Return the signing keys, the one that signs first: {"keys": [...]}."""
        return self._send("GET", f"/{protocol.VERSION}/keys", "keys")

    def rotate_key(self) -> Document:
        """Make a new signing key and return all."""
        return self._send("POST", f"/{protocol.VERSION}/keys/rotate", "keys", {})

    def command(self, key: SubjobKey, command: m.Command, field: str = "status") -> Document:
        """Send one command for a subjob and return the answer, which has at least `field`."""
        client_at = protocol.rfc3339(self.clock.wall())
        body = protocol.body_of(command, self.clock.new_id(), client_at)
        return self._send("POST", protocol.command_path(key, command), field, body)

    def _all_pages(self, path: str, items: str, cursor: str) -> Document:
        def page(after: object) -> Document:
            query = f"?limit={PAGE_SIZE}"
            if after is not None:
                query += f"&{cursor}={quote(str(after), safe='')}"
            return self._send("GET", path + query, items)

        return join_pages(page, items)

    def _send(self, method: str, path: str, field: str, body: Document | None = None) -> Document:
        try:
            document, _ = send(
                self.transport, self.clock, method, path, body, self.patience_seconds
            )
        except ServerUnavailable as error:
            raise ServerUnavailable(
                f"the lease server does not answer ({error}); start one with `htlease serve`, or "
                "name yours with --server or HTLEASE_URL"
            ) from error
        if field not in document:
            raise BadConfig(
                f"{self.url} answers, but not as a lease server does; name yours with --server or "
                "HTLEASE_URL"
            )
        return document


def join_pages(page: Callable[[object], Document], items: str) -> Document:
    """Return the first page with the `items` of all pages, following `next` to its end."""
    whole = page(None)
    after = whole.pop("next", None)
    while after is not None:
        further = page(after)
        whole[items] = [*whole[items], *further[items]]
        after = further.get("next")
    return whole


def as_json(document: object) -> str:
    """Return a document as people and `jq` like it."""
    return json.dumps(document, indent=2, ensure_ascii=False)
