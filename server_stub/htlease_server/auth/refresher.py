"""A thread that looks for what other servers, or people, have changed: keys and revocations."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from htlease.errors import BadConfig
from htlease_server.auth.authenticator import Authenticator
from htlease_server.auth.job_tokens import TTL_MAX_SECONDS
from htlease_server.auth.signing_keys import KeyFiles
from htlease_server.logs import note
from htlease_server.store.base import Reader, StoreFailed

LOOK_SECONDS = 2.0
#: Rows of one store become visible in another order than that of their times.
_OVERLAP_SECONDS = 60.0


class Refresher:
    """Keeps an authenticator up to date; `reader` is used by its thread only."""

    def __init__(
        self,
        authenticator: Authenticator,
        keys: KeyFiles,
        reader: Reader,
        clock: Callable[[], float],
    ) -> None:
        """Take up what is revoked already; raises StoreFailed."""
        self._authenticator = authenticator
        self._keys = keys
        self._reader = reader
        self._clock = clock
        self._looked_at = clock() - TTL_MAX_SECONDS
        self._trouble: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="htlease-refresher", daemon=True)
        self._look_for_revocations()

    def start(self) -> None:
        """Start to look every few seconds."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                if self._keys.look():
                    note(logging.WARNING, "signing keys were read again", keys=len(self._keys))
                    self._authenticator.forget()
                self._look_for_revocations()
                self._say(None)
            except (BadConfig, StoreFailed) as problem:
                self._say(str(problem))
            except Exception:
                note(logging.ERROR, "looking for changed keys and tokens failed", trace=True)

    def _look_for_revocations(self) -> None:
        now = self._clock()
        rows = self._reader.revocations(self._looked_at - _OVERLAP_SECONDS)
        self._looked_at = now
        self._authenticator.revoke(rows)

    def _say(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._trouble:
            note(logging.WARNING, "keys and revocations are not up to date", why=trouble)
        self._trouble = trouble
