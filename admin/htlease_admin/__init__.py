"""The `htlease` command: the operator's side, on the access point."""

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Return the installed version of htlease, or `unknown` in a bare checkout."""
    try:
        return version("htlease")
    except PackageNotFoundError:
        return "unknown"
