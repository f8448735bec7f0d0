"""The version of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("roomcast")
    except PackageNotFoundError:
        return "unknown"  # run from a checkout that is not installed


VERSION = _version()
