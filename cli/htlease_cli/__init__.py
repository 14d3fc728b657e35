"""The `htlease` command: the operator's side, on the access point."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str | None:
    """Return the version of htlease, or None when it runs from a checkout without installation."""
    try:
        return version("htlease")
    except PackageNotFoundError:
        return None
