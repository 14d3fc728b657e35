"""The keys that sign job tokens: the newest signs, and all of them verify until they are removed.

`signing.key` beside the administrator's token is the first; rotation adds `signing.ID.key`, where
the ID begins with the time and stands in the tokens' header as `kid`. Whoever removes a file ends
every token that it signed. Servers that share the files share the keys.
"""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htlease.errors import BadConfig
from htlease_server.auth.secret_files import make_secret, read_or_make_secret, read_secret

#: The ID of the first key; its tokens have no `kid`.
FIRST = ""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
_WHAT = "signing key file"


class KeyRing:
    """Keys by their IDs; the last ID in order signs."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def find(self, key_id: str) -> bytes | None:
        """Return a key, or None when there is none of this ID."""
        return self._keys.get(key_id)

    def newest(self) -> tuple[str, bytes]:
        """Return the key that signs, with its ID."""
        keys = self._keys
        key_id = max(keys)
        return key_id, keys[key_id]

    def __len__(self) -> int:
        return len(self._keys)

    def document(self) -> list[dict[str, Any]]:
        """Return what may be shown of the keys, the one that signs first."""
        ids = sorted(self._keys, reverse=True)
        return [{"kid": key_id or None, "signs": key_id == ids[0]} for key_id in ids]


class KeyFiles(KeyRing):
    """Keys in files, read again when there are others than before."""

    def __init__(self, first: Path) -> None:
        """Read the keys, and make the first when there is none; raises BadConfig."""
        self._first = first
        if not self._files():
            read_or_make_secret(first, _WHAT)
        self._seen = self._stamps()
        super().__init__(self._read())

    def find(self, key_id: str) -> bytes | None:
        """Return a key, also one that another server has just made."""
        found = super().find(key_id)
        if found is None and _ID.fullmatch(key_id) and self._path(key_id).exists():
            self.look()
            found = super().find(key_id)
        return found

    def look(self) -> bool:
        """Read the files again if they have changed; tell whether the keys are other ones now.

        Raises BadConfig, and keeps the keys it has, when one cannot be read or none is left.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        keys = self._read()
        self._seen = stamps
        is_new, self._keys = keys != self._keys, keys
        return is_new

    def rotate(self, now: float) -> str:
        """Make a new key, which signs from here on, and return its ID; raises BadConfig."""
        moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        key_id = f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        make_secret(self._path(key_id), _WHAT)
        self.look()
        return key_id

    def _path(self, key_id: str) -> Path:
        return self._first.with_name(f"signing.{key_id}.key") if key_id else self._first

    def _files(self) -> dict[str, Path]:
        found = {FIRST: self._first} if self._first.exists() else {}
        for path in self._first.parent.glob("signing.*.key"):
            key_id = path.name.removeprefix("signing.").removesuffix(".key")
            if _ID.fullmatch(key_id):
                found[key_id] = path
        return found

    def _read(self) -> dict[str, bytes]:
        files = self._files()
        if not files:
            raise BadConfig(f"{_WHAT} {self._first} is gone, and there is no other; restart")
        return {key_id: read_secret(path, _WHAT).encode() for key_id, path in files.items()}

    def _stamps(self) -> dict[str, tuple[int, int]]:
        stamps = {}
        for key_id, path in self._files().items():
            try:
                status = path.stat()
            except OSError:
                continue
            stamps[key_id] = (status.st_mtime_ns, status.st_ino)
        return stamps
