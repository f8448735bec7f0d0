"""What stops a run before it has a result."""

from __future__ import annotations


class SetupError(Exception):
    """The run could not be made. The text says what to do next; the command line shows it and exits with 2."""
