"""Which htlease this is; the project's metadata is read from here."""

from __future__ import annotations

VERSION = "0.1.0"
