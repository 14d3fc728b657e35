"""What the agent itself refuses, as RFC 9457 problems of the wire protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from htlease.rules.messages import Rejection
from htlease.wire.protocol import problem_document


def problem(
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    outcome: str | None = None,
) -> web.Response:
    """Return the answer for a stable code."""
    document = problem_document(Rejection(code, detail, outcome=outcome))
    return web.Response(
        status=document["status"],
        headers={"Content-Type": "application/problem+json", **(headers or {})},
        body=json.dumps(document).encode(),
    )
