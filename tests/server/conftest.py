"""What several tests of the node share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from server.logs import QUIET


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Undoes ``server.logs.configure``, which changes the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:], root.level = handlers, level
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
