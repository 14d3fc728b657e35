"""An ASGI application that does nothing, on the server's own stack: the bound of what it can do."""

from __future__ import annotations

import socket

import uvicorn

from htlease_server.serve import uvicorn_config
from htlease_server.wire import Answer, Receive, Scope, Send, read_body, send_answer


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and send it back."""
    await send_answer(send, Answer(200, await read_body(scope, receive)))


def main() -> None:
    """Serve on a free port of the loopback interface and print its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"echo server  http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn_config(echo)).run(sockets=[listener])


if __name__ == "__main__":
    main()
