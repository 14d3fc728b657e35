"""The agent's unix socket, where hooks ask: the shadow's for a start, the router's for a copy."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from htlease.client.client import Document
from htlease.errors import BadConfig, HTLeaseError, InvalidField, Refused
from htlease_agent.job_tokens import JobTokens
from htlease_agent.peer_credentials import PeerCredentials
from htlease_agent.problems import problem
from htlease_agent.reconcile.report_end import Reports
from htlease_agent.routed_jobs import Routes

START_PATH = "/v1/starts"
ROUTE_PATH = "/v1/routes/{step}"
BODY_MAX_BYTES = 64 * 1024
READ_SECONDS = 5.0
#: Calls that wait for the schedd or the server; whoever comes then is told to follow its policy.
WAITING_MAX = 500

log = logging.getLogger("htlease_agent")


class HookApi:
    """The application behind the socket."""

    def __init__(self, job_tokens: JobTokens) -> None:
        self._job_tokens = job_tokens
        # The router waits for its hooks, and the watcher asks for evidence in any case.
        reports = Reports(job_tokens.server, evidence=None)
        self._routes = Routes(job_tokens.server, job_tokens.owners, job_tokens.queue, reports)
        # The schedd answers one at a time anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-hook-api")
        self._waiting = 0

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.router.add_post(START_PATH, self._start)
        app.router.add_post(ROUTE_PATH, self._route)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._job_tokens.queue.close()

    async def _start(self, request: web.Request) -> web.Response:
        return await self._answer(
            request,
            lambda peer, body: self._job_tokens.answer(
                peer, str(body["job"]), body.get("no_path") is True
            ),
        )

    async def _route(self, request: web.Request) -> web.Response:
        step = request.match_info["step"]
        return await self._answer(request, lambda peer, body: self._routes.answer(step, peer, body))

    async def _answer(
        self, request: web.Request, decide: Callable[[PeerCredentials, Mapping[str, Any]], Document]
    ) -> web.Response:
        connection: socket.socket = request.get_extra_info("socket")
        if self._waiting >= WAITING_MAX:
            return problem("overloaded", f"{WAITING_MAX} calls wait already")
        self._waiting += 1
        try:
            peer = PeerCredentials.of(connection)
            body = json.loads(await asyncio.wait_for(request.read(), READ_SECONDS))
            if not isinstance(body, dict):
                raise ValueError("the body is no object")
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._thread, decide, peer, body)
        except Refused as refused:
            return problem(refused.code, refused.detail, outcome=refused.outcome)
        except (InvalidField, ValueError, KeyError) as error:
            return problem("invalid", str(error))
        except BadConfig as error:
            log.error("a call was not answered: %s", error)
            return problem("internal", str(error))
        except (HTLeaseError, asyncio.TimeoutError, OSError) as error:
            return problem("overloaded", str(error) or "the request did not arrive in time")
        finally:
            self._waiting -= 1
        return web.json_response(answer)
