"""Passes requests of jobs on to the lease server, for execution points without a way to it.

It knows no lease rules and keeps nothing: the token goes through end to end, and so does every
answer. What the agent says itself names the agent, so that nobody takes one side for the other.
"""

from __future__ import annotations

import asyncio
import logging
import os

import aiohttp
from aiohttp import web
from yarl import URL

from htlease.wire.forward_proxy import ProxyUnusable, named_proxy
from htlease.wire.protocol import BODY_MAX_BYTES, VERSION
from htlease.wire.transport import tls_context
from htlease_agent.problems import problem

#: A request has to fit into what a wrapper waits for its answer, both directions included.
UPSTREAM_SECONDS = 12.0
BODY_SECONDS = 10.0
ANSWER_MAX_BYTES = 32 << 20
#: Requests on their way to the server at a time; who comes then is told to come again.
UNDER_WAY_MAX = 1000
UPSTREAM_CONNECTIONS_MAX = 100
RETRY_AFTER_SECONDS = 2

_TO_SERVER = ("Authorization", "Content-Type", "Accept")
_TO_CALLER = ("Content-Type", "Retry-After", "WWW-Authenticate", "Allow")

log = logging.getLogger("htlease_agent")


class Proxy:
    """The application that execution points reach."""

    def __init__(self, server_url: str, name: str) -> None:
        """Prepare to pass on to a server; `name` is this access point's, in `Via`."""
        self._server_url = server_url.rstrip("/")
        self._name = name
        self._via = f"1.1 {name} (htlease-agent)"
        self._proxy_url = _proxy_url(URL(self._server_url))
        self._under_way = 0
        self._session: aiohttp.ClientSession | None = None
        self._is_away = False

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.router.add_route("*", "/{anything:.*}", self._handle)
        app.on_startup.append(self._open)
        app.on_cleanup.append(self._close)
        return app

    async def _open(self, app: web.Application) -> None:
        self._session = aiohttp.ClientSession(
            # The same authorities as every client of ours; aiohttp knows the system's only.
            connector=aiohttp.TCPConnector(limit=UPSTREAM_CONNECTIONS_MAX, ssl=tls_context()),
            timeout=aiohttp.ClientTimeout(total=UPSTREAM_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
        )

    async def _close(self, app: web.Application) -> None:
        assert self._session is not None
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.Response:
        # As it came over the wire: a path that is decoded and encoded again may be another one.
        path = request.raw_path
        is_call = path.startswith(f"/{VERSION}/")
        if not is_call and path != "/healthz":
            return self._problem("not-found", f"passes on /{VERSION}/... and /healthz only")
        if is_call and not request.headers.get("Authorization", "").lower().startswith("bearer "):
            headers = {"WWW-Authenticate": 'Bearer realm="htlease"'}
            return self._problem("unauthorized", "passes on nothing without a token", headers)
        if self._under_way >= UNDER_WAY_MAX:
            return self._busy(f"has {UNDER_WAY_MAX} requests under way already")
        self._under_way += 1
        try:
            body = await asyncio.wait_for(request.read(), BODY_SECONDS)
            return await self._pass_on(request, path, body)
        except web.HTTPRequestEntityTooLarge:
            text = f"takes bodies of at most {BODY_MAX_BYTES} bytes"
            return self._problem("too-large", text, {"Connection": "close"})
        except (asyncio.TimeoutError, TimeoutError):
            text = f"had no complete request after {BODY_SECONDS:g} s"
            return self._problem("invalid", text, {"Connection": "close"})
        finally:
            self._under_way -= 1

    async def _pass_on(self, request: web.Request, path: str, body: bytes) -> web.Response:
        headers = {name: request.headers[name] for name in _TO_SERVER if name in request.headers}
        headers["Via"] = ", ".join([*request.headers.getall("Via", []), self._via])
        try:
            try:
                answer = await self._exchange(request.method, path, headers, body)
            except aiohttp.ServerDisconnectedError:
                # A kept connection that the server had closed; requests carry an ID, so twice is
                # safe.
                answer = await self._exchange(request.method, path, headers, body)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            if not self._is_away:
                log.warning(
                    "the lease server does not answer: %s", str(error) or type(error).__name__
                )
            self._is_away = True
            return self._busy(f"has no answer from the lease server at {self._server_url}")
        if self._is_away:
            log.info("the lease server answers again")
            self._is_away = False
        return answer

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> web.Response:
        assert self._session is not None
        url = URL(self._server_url + path, encoded=True)
        data = body or None
        async with self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False, proxy=self._proxy_url
        ) as response:
            content = await response.content.read(ANSWER_MAX_BYTES)
            while not response.content.at_eof() and len(content) < ANSWER_MAX_BYTES:
                content += await response.content.read(ANSWER_MAX_BYTES - len(content))
            if not response.content.at_eof():
                raise aiohttp.ClientPayloadError("the answer is too large")
            kept = {name: response.headers[name] for name in _TO_CALLER if name in response.headers}
            kept["Via"] = self._via
            return web.Response(status=response.status, headers=kept, body=content)

    def _busy(self, text: str) -> web.Response:
        return self._problem("overloaded", text, {"Retry-After": str(RETRY_AFTER_SECONDS)})

    def _problem(self, code: str, text: str, headers: dict[str, str] | None = None) -> web.Response:
        return problem(
            code, f"the agent on {self._name} {text}", {"Via": self._via, **(headers or {})}
        )


def _proxy_url(server: URL) -> str | None:
    """Return the URL of the forward proxy that this daemon's environment names for the server."""
    try:
        found = named_proxy(
            os.environ, server.scheme == "https", server.host or "", server.port or 0
        )
    except ProxyUnusable as error:
        log.warning("the lease server is asked directly: %s", error)
        return None
    return None if found is None else found.url
