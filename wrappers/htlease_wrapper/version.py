"""Which htlease this is; `build_pyz` writes the version of the project here."""

from __future__ import annotations

VERSION = "0.1.0"
