"""The public keys of one issuer: fetched by a thread of its own, and kept on disk.

No request ever waits for an issuer: who comes with a key that is not here is told to come again,
and the thread looks for it, not more often than every few seconds. Keys of an issuer that does not
answer go on counting until they are too old; the file carries them over a restart.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import jwt

from htlease_server.auth.issuer_config import Issuer
from htlease_server.logs import note

#: How long an issuer may take for one of its two documents.
FETCH_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
DOCUMENT_MAX_BYTES = 1 << 20
#: Between two looks for a key that somebody's token names.
LOOK_AGAIN_SECONDS = 10.0
_RETRY_FIRST_SECONDS = 5.0
_DISCOVERY = "/.well-known/openid-configuration"

#: What a key signs with when it does not say so itself. No symmetric ones: with them a public key
#: would be a secret.
_ALGORITHM_OF = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
}
_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")

KeysById = Mapping[str, jwt.PyJWK]


class IssuerUnavailable(Exception):
    """The issuer's keys could not be had; the text says why."""


class IssuerKeys:
    """The keys of one issuer, as far as they are known."""

    def __init__(
        self,
        issuer: Issuer,
        directory: Path,
        refresh_seconds: float,
        max_age_seconds: float,
        changed: Callable[[], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take up the keys on disk. `changed` is called by the thread when the keys are others."""
        self.issuer = issuer
        self._file = directory / f"{hashlib.sha256(issuer.url.encode()).hexdigest()[:24]}.json"
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._changed = changed
        self._wall = wall
        self._keys: KeysById = {}
        #: By the machine's clock, which the file's time is compared with after a restart.
        self._fetched_at = 0.0
        self._tried_at = 0.0
        #: Why the last try failed; None when it did not.
        self.trouble: str | None = None
        self._is_wanted = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="htlease-issuer", daemon=True)
        self._read()

    def start(self) -> None:
        """Start to keep the keys fresh."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that waits for an issuer ends with the process."""
        self._stop.set()
        self._is_wanted.set()

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key of an ID, or the only one if a token names none; None if it is not here.

        Asks for it to be looked for then. Raises IssuerUnavailable when no key may be used, or it
        is being looked for.
        """
        now = self._wall()
        is_fresh = now - self._fetched_at <= self._max_age_seconds
        keys = self._keys if is_fresh else {}
        if key_id is None:
            found = next(iter(keys.values())) if len(keys) == 1 else None
        else:
            found = keys.get(key_id)
        if found is not None:
            return found
        if now - self._tried_at >= LOOK_AGAIN_SECONDS or self._is_wanted.is_set():
            self._is_wanted.set()
            raise IssuerUnavailable(f"the keys of {self.issuer.url} are being fetched")
        if not keys:
            why = self.trouble or "they are being fetched"
            raise IssuerUnavailable(f"the keys of {self.issuer.url} cannot be had: {why}")
        return None

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        retry_seconds = _RETRY_FIRST_SECONDS
        while not self._stop.is_set():
            age_seconds = self._wall() - self._fetched_at
            if self._is_wanted.is_set() or self.trouble or age_seconds >= self._refresh_seconds:
                self._refresh()
                self._is_wanted.clear()
            if self.trouble is None:
                retry_seconds = _RETRY_FIRST_SECONDS
                seconds = max(1.0, self._refresh_seconds - (self._wall() - self._fetched_at))
            else:
                seconds = retry_seconds = min(2 * retry_seconds, self._refresh_seconds)
            self._is_wanted.wait(seconds)

    def _refresh(self) -> None:
        try:
            document = fetch_keys(self.issuer)
            keys = keys_in(document)
            if not keys:
                raise IssuerUnavailable("its key set has no key that can be used")
        except IssuerUnavailable as error:
            if self.trouble is None:
                note(logging.WARNING, "issuer away", issuer=self.issuer.url, why=str(error))
            self.trouble = str(error)
            self._tried_at = self._wall()
            return
        if self.trouble is not None:
            note(logging.WARNING, "issuer answers again", issuer=self.issuer.url)
        is_new = _fingerprint(self._keys) != _fingerprint(keys)
        self._keys, self.trouble = keys, None
        self._fetched_at = self._tried_at = self._wall()
        if is_new:
            note(logging.INFO, "issuer keys", issuer=self.issuer.url, kids=", ".join(sorted(keys)))
            self._changed()
        self._write(document)

    # ------------------------------------------------------------ the file

    def _read(self) -> None:
        try:
            kept = json.loads(self._file.read_text())
            if kept["issuer"] == self.issuer.url:
                self._keys = keys_in(kept["document"])
                # A clock that was wrong must not make keys young for ever.
                self._fetched_at = min(float(kept["fetched_at"]), self._wall())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # none were kept, or by another version: they are fetched

    def _write(self, document: Mapping[str, Any]) -> None:
        kept = {
            "issuer": self.issuer.url,
            "fetched_at": self._fetched_at,
            "document": document,
        }
        temporary = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(kept, file)
            temporary.replace(self._file)
        except OSError as error:
            note(logging.WARNING, "issuer keys not kept", file=self._file, why=error.strerror)


def keys_in(document: Mapping[str, Any]) -> KeysById:
    """Return the usable public keys of a JWK set by their IDs; `""` is that of one without."""
    found: dict[str, jwt.PyJWK] = {}
    listed = document.get("keys")
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        algorithm = entry.get("alg") or _algorithm_of(entry)
        if algorithm not in _ALGORITHMS:
            continue
        try:
            found[str(entry.get("kid", ""))] = jwt.PyJWK(entry, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue  # one that is broken must not cost the others
    return found


def _algorithm_of(entry: Mapping[str, Any]) -> str | None:
    return _ALGORITHM_OF.get((str(entry.get("kty")), entry.get("crv")))


def _fingerprint(keys: KeysById) -> dict[str, str]:
    return {name: json.dumps(key._jwk_data, sort_keys=True) for name, key in keys.items()}


# ------------------------------------------------------------ the network


def fetch_keys(issuer: Issuer) -> dict[str, Any]:
    """Return the issuer's JWK set, by the way that its discovery document names.

    Over https only, without following redirections. Raises IssuerUnavailable.
    """
    try:
        context = ssl.create_default_context(
            cafile=None if issuer.ca_file is None else str(issuer.ca_file)
        )
    except OSError as error:
        raise IssuerUnavailable(f"ca_file {issuer.ca_file}: {error.strerror or error}") from None
    described = _get(issuer.url + _DISCOVERY, context)
    if str(described.get("issuer", "")).rstrip("/") != issuer.url:
        raise IssuerUnavailable(f"{issuer.url}{_DISCOVERY} names another issuer")
    return _get(str(described.get("jwks_uri")), context)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: Any, **named: Any) -> None:
        return None


def _get(url: str, context: ssl.SSLContext) -> dict[str, Any]:
    if urlsplit(url).scheme != "https":
        raise IssuerUnavailable(f"{url!r} is not https://")
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), _NoRedirection
    )
    until = time.monotonic() + FETCH_SECONDS
    data = b""
    try:
        with opener.open(url, timeout=_CONNECT_SECONDS) as answer:
            # `read1` returns what has come, so that one who sends a byte a second is cut off.
            while chunk := answer.read1(65536):
                data += chunk
                if len(data) > DOCUMENT_MAX_BYTES:
                    raise IssuerUnavailable(f"{url} has more than {DOCUMENT_MAX_BYTES} bytes")
                if time.monotonic() > until:
                    raise IssuerUnavailable(f"{url} took more than {FETCH_SECONDS:g} s")
        document = json.loads(data)
    except HTTPError as error:
        raise IssuerUnavailable(f"{url} answered {error.code}") from None
    except URLError as error:
        raise IssuerUnavailable(f"{url}: {error.reason}") from None
    except (OSError, ValueError) as error:
        raise IssuerUnavailable(f"{url}: {error}") from None
    if not isinstance(document, dict):
        raise IssuerUnavailable(f"{url} is no JSON object")
    return document
