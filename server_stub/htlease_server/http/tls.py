"""The server's certificate: read again when its files change, without a restart.

Certificates of sites are renewed every few weeks by programs that only replace files.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.logs import note

#: How old a look at the files may be when a client connects.
LOOK_SECONDS = 5.0


class Certificate:
    """A certificate chain and its key, as the files have them now."""

    def __init__(
        self, chain: Path, key: Path, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the files; raises BadConfig."""
        self._chain, self._key = chain, key
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._seen = self._stamps()
        for file in (chain, key):
            try:
                file.open("rb").close()  # OpenSSL does not say which of the two
            except OSError as error:
                raise BadConfig(
                    f"{file} cannot be read: {error.strerror}; name another, or let the server's"
                    " user read it, by its group for instance"
                ) from error
        try:
            self._latest = self._read()
        except (OSError, ssl.SSLError) as error:
            raise BadConfig(
                f"certificate {chain} with key {key} cannot be used: {_why(error)}"
            ) from error

    def context(self) -> ssl.SSLContext:
        """Return a context that gives each new connection the latest certificate."""
        context = self._read()
        context.sni_callback = self._give
        return context

    def _give(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> None:
        now = self._monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self.look()
        connection.context = self._latest

    def look(self) -> None:
        """Read the files again if they have changed."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return
            self._latest = self._read()
        except (OSError, ssl.SSLError) as error:
            # Perhaps one of two files is replaced and the other is not yet: look again later.
            note(
                logging.WARNING,
                "the new certificate is not used",
                file=self._chain,
                why=_why(error),
            )
            return
        self._seen = stamps
        note(logging.INFO, "the certificate was read again", file=self._chain)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._chain, self._key, password=_no_password)
        return context

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        found = []
        for path in (self._chain, self._key):
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0))
                continue
            found.append((status.st_mtime_ns, status.st_ino))
        return tuple(found)


def _no_password() -> str:
    # Else OpenSSL asks at the terminal, and a server has none.
    raise ssl.SSLError("the key is encrypted; a server needs one without a password")


def _why(error: OSError) -> str:
    return error.strerror or str(error)
