"""Bounds on the connections to the proxy: how many, and how long one may stay silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

CONNECTIONS_MAX = 5000
#: A new connection that has sent no complete head of a request by then is closed.
HEAD_SECONDS = 15.0
KEEP_ALIVE_SECONDS = 60.0

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class _Rejected(asyncio.Protocol):
    """Answers a connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_FULL)
        transport.close()


class ConnectionLimiter:
    """Lets connections in, for as many servers as there are addresses."""

    def __init__(self, head_seconds: float = HEAD_SECONDS) -> None:
        self._head_seconds = head_seconds
        #: Connections that have not made a request yet.
        self._silent: set[web.RequestHandler] = set()

    def protocol_factory(self, server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """Return what makes the protocol of each connection, as `loop.create_server` wants it."""

        def accept() -> asyncio.BaseProtocol:
            if len(server.connections) >= CONNECTIONS_MAX:
                return _Rejected()
            protocol = server()
            self._silent.add(protocol)
            loop = asyncio.get_running_loop()
            loop.call_later(self._head_seconds, self._look_at, protocol)
            return protocol

        return accept

    def _look_at(self, protocol: web.RequestHandler) -> None:
        if protocol in self._silent:
            self._silent.discard(protocol)
            protocol.force_close()

    def watch(self, app: web.Application) -> None:
        """Hear of the requests that reach an application."""

        @web.middleware
        async def note(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        ) -> web.StreamResponse:
            self._silent.discard(request.protocol)
            return await handler(request)

        app.middlewares.append(note)
