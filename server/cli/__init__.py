"""The command line: one file per group of commands, and :func:`main`."""

from server.cli.entry import main

__all__ = ["main"]
