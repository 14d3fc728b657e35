"""The start of a job for which a starter hook is called: its ad, sandbox, key, server and token.

A hook's own environment holds secrets of the daemons, so nothing but names that are listed here
is ever read from it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from htlease.condor import chirp
from htlease.condor.job_ad import Ad, evidence_of, is_stamped, parse_ad, place_of
from htlease.errors import BadConfig
from htlease.execution.connect import transport_to
from htlease.execution.credentials import (
    BROUGHT_TOKEN,
    Token,
    keep_renewed,
    renewed_token,
    token_of_job,
)
from htlease.execution.job import Job, choose_key, find_job
from htlease.execution.sandbox_state import SandboxState, inherited, next_state, read_state
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.lease_client import LeaseClient
from htlease.wire.retry import Clock
from htlease.wire.transport import CHIRP_URL
from htlease_hooks.options import Site
from htlease_hooks.starter.environment import Unreadable, job_environment
from htlease_hooks.starter.hook_state import HookState
from htlease_hooks.starter.job_inputs import brings_token, wrapper_options
from htlease_wrapper.wrapped_job import is_wrapper_file

#: Of a job's environment and of the hook's; daemons may have a BEARER_TOKEN of their own.
_FROM_HOOK = ("_CONDOR_CREDS", "_CONDOR_CHIRP_CONFIG")
#: An exchange must fit into the time for the server more than once.
_EXCHANGE_PART = 1 / 2
_EXCHANGE_MIN_SECONDS = 1.0


class StartContext:
    """What one start says of itself; read once."""

    def __init__(self, ad_text: str, environ: Mapping[str, str], site: Site) -> None:
        self.ad_text = ad_text
        self.ad = Ad("the hook's input", parse_ad(ad_text))
        self.site = site
        self.clock = Clock()
        self._environ = environ
        job = find_job(environ)
        self.job = job if job.ad else Job(job.sandbox, self.ad, job.machine_ad)
        self.hook_state = HookState(job.sandbox)

    @property
    def is_readable(self) -> bool:
        """Tell whether the input names a job."""
        return self.ad.text("GlobalJobId") is not None

    @property
    def is_left_alone(self) -> bool:
        """Tell whether the job opted out, or is a person's session on the execution point."""
        attributes = self.ad.attributes
        return attributes.get("htlease") is False or attributes.get("interactivejob") is True

    @property
    def brings_wrapper(self) -> bool:
        """Whether the job is a wrapper itself, or names a plan for the site's."""
        ad = self.ad
        names = ("HTLeaseProgram", "HTLeasePlan")
        return is_wrapper_file(ad.text("Cmd") or "") or any(map(ad.text, names))

    @cached_property
    def is_left_to_wrapper(self) -> bool:
        """Whether the job is a wrapper that was told a subjob or a server of its own."""
        ad = self.ad
        if not is_wrapper_file(ad.text("Cmd") or "") or ad.text("HTLeaseProgram"):
            return False
        named = wrapper_options(self.ad_text)
        return "--key" in named or named.get("--server", self._server) != self._server

    @property
    def token_comes_later(self) -> bool:
        """Whether the input will bring a token that counts more than the one there is.

        One that is for the very subjob that the job names will do until then.
        """
        if not brings_token(self.ad_text) or self._has_brought_token:
            return False
        scope = self.token.scope() if self.token else None
        if scope is None or is_stamped(str(self.key), self.ad):
            return True
        return scope not in ((self.key.workflow, self.key.subjob), (self.key.workflow, None))

    @property
    def _has_brought_token(self) -> bool:
        return (self.job.sandbox / BROUGHT_TOKEN).exists()

    @cached_property
    def environment(self) -> dict[str, str] | None:
        """The job's own environment; None when the ad's form of it cannot be read."""
        try:
            return job_environment(self.ad_text)
        except Unreadable:
            return None

    @cached_property
    def token(self) -> Token | None:
        """The job's token; raises BadConfig for one that cannot travel."""
        hook = {name: self._environ[name] for name in _FROM_HOOK if name in self._environ}
        own = {**(self.environment or {}), **hook}
        return token_of_job(own, self.job.sandbox, os.geteuid())

    @property
    def needs_token(self) -> bool:
        """Whether a network leads to the server; what goes by the queue, the agent vouches for."""
        return self.ad.text("HTLeaseURL") != CHIRP_URL

    @cached_property
    def key(self) -> SubjobKey:
        """The subjob; raises BadConfig."""
        return choose_key((self.environment or {}).get("HTLEASE_KEY"), self.job.ad, self.token)

    @cached_property
    def server(self) -> str:
        """The server's URL: of the job, else of its access point, else of this site."""
        if not self._server:
            raise BadConfig("no server is named; set HTLEASE_URL in the configuration")
        return self._server

    @property
    def _server(self) -> str:
        named = (self.environment or {}).get("HTLEASE_URL") or self.ad.text("HTLeaseURL")
        return named or self.site.server

    def keep_token(self, answer: Mapping[str, Any]) -> None:
        """Keep the fresh token that the answer to a renewal may have, for the hooks to come."""
        fresh = renewed_token(answer)
        if fresh is not None:
            try:
                keep_renewed(self.hook_state.folder, fresh)
            except OSError:
                pass  # the next renewal brings another

    def connect(self, state: SandboxState, token: Token | None = None) -> LeaseClient:
        """Return a client for the subjob and server that a state names; raises BadConfig.

        It shows the job's token, or the one that is given.
        """
        exchange_seconds = max(_EXCHANGE_MIN_SECONDS, self.site.wait_server * _EXCHANGE_PART)
        shown = token or self.token
        transport = transport_to(
            state.server,
            shown.text if shown else None,
            self.job.sandbox,
            self._environ,
            exchange_seconds,
        )
        return LeaseClient(transport, SubjobKey.parse(state.key), self.clock)

    def state(self) -> SandboxState | None:
        """Return what this start's processes have left: its nonce, and its fence if it has one."""
        state = read_state(self.job.sandbox)
        return state if state is not None and state.start == self.job.start_id else None

    def new_state(self) -> SandboxState:
        """Return a fresh state, or that of an earlier hook of this start."""
        before = inherited(self.state(), self.job.start_id)
        if before is not None:
            return before
        fresh = os.urandom(24).hex()
        return next_state(None, self.job.start_id, fresh, str(self.key), self.server)

    def acquire_command(self, state: SandboxState) -> m.Acquire:
        """Return what asks for the lease; it brings no plan, a wrapper may bring one later."""
        return m.Acquire(
            nonce=state.nonce,
            evidence=evidence_of(self.job.ad, state.sandbox_seq)[0],
            place=place_of(self.job.ad, self.job.machine_ad),
            global_job_id=self.job.global_job_id,
            host=os.uname().nodename,
            ttl_seconds=self.site.ttl,
        )

    def show(self, attributes: Mapping[str, str | int]) -> None:
        """Let `condor_q` show something; a comfort that may fail."""
        config = chirp.config_path(
            {name: self._environ[name] for name in _FROM_HOOK if name in self._environ},
            self.job.sandbox,
        )
        if config is not None:
            chirp.set_delayed(config, attributes)

    def variables(self, grant: m.Grant) -> dict[str, str]:
        """Return what the job finds in its environment."""
        return {
            "HTLEASE": str(Path(sys.argv[0]).absolute().with_name("htlease-ep.pyz")),
            "HTLEASE_ATTEMPT": grant.attempt_id,
            "HTLEASE_ATTEMPT_NUMBER": str(grant.attempt_number),
            "HTLEASE_FENCE": str(grant.fence),
            "HTLEASE_OUTPUT_PREFIX": f"attempt-{grant.attempt_number}-fence-{grant.fence}",
            "HTLEASE_KEY": str(self.key),
            "HTLEASE_URL": self.server,
        }
