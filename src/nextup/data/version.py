"""The version of nextup that writes a file."""

from __future__ import annotations


def version() -> str:
    """Return the installed version, ``"source"`` where nextup was not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("nextup")
    except PackageNotFoundError:
        return "source"
