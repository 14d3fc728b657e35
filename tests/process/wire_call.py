"""Calls of the wire protocol as raw as a test needs them."""

from __future__ import annotations

import http.client
import itertools
import json
from typing import Any, NamedTuple

from tests.published import check_answer

_IDS = itertools.count(1)
#: The first start's, where a test needs one holder only.
NONCE = "nonce-of-a-test-0123456789"


class Called(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem, which has to come with everything that belongs to one."""
        if self.status == 200:
            return None
        problem = self.document
        assert self.headers["content-type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:htlease:problem:{problem['code']}"
        assert problem["detail"] and problem["title"]
        assert "Traceback" not in problem["detail"]
        return str(problem["code"])


class Caller:
    """One token on one server."""

    def __init__(self, url: str, token: str | None) -> None:
        self._address = url.removeprefix("http://")
        self._token = token

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Called:
        """Send bytes and return the answer."""
        if self._token is not None:
            headers.setdefault("authorization", f"Bearer {self._token}")
        connection = http.client.HTTPConnection(self._address, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            called = Called(answer.status, found, answer.read())
        finally:
            connection.close()
        if method != "HEAD":
            check_answer(method, path, called.status, called.body)
        return called

    def get(self, path: str) -> Called:
        return self.raw("GET", path)

    def post(self, path: str, **body: Any) -> Called:
        """POST a body, with a new request ID unless it has one."""
        body = {"request_id": f"call-{next(_IDS)}", **body}
        return self.raw("POST", path, json.dumps(body).encode())

    def put(self, path: str, **body: Any) -> Called:
        body = {"request_id": f"call-{next(_IDS)}", **body}
        return self.raw("PUT", path, json.dumps(body).encode())

    def mint(self, **body: Any) -> str:
        """Return a new job token."""
        called = self.raw("POST", "/v1/tokens", json.dumps(body).encode())
        assert called.status == 200, called
        return str(called.document["token"])


def acquire(admin: Caller, subjob: str, **changes: Any) -> Called:
    body = {
        "nonce": NONCE,
        "global_job_id": "ap1#42.0#1795225431",
        "evidence": {"job_starts": 1, "shadow_starts": 1},
        **changes,
    }
    return admin.post(f"{subjob}/acquire", **body)


def newer(admin: Caller, subjob: str, **changes: Any) -> Called:
    """Ask as the second start of the same submission."""
    evidence = {"job_starts": 2, "shadow_starts": 2}
    return acquire(admin, subjob, nonce="nonce-of-the-second-start", evidence=evidence, **changes)
