"""A node that reads every request twice, as after a careless change."""

from __future__ import annotations

import shlex
import sys

from server import protocol
from server.cli.entry import main

COMMAND = shlex.join([sys.executable, "-m", "tests.loadtests.slowed_node", "serve"])
_parse = protocol.parse


def _parse_twice(data: bytes, limits: protocol.Limits) -> protocol.Request:
    _parse(data, limits)
    return _parse(data, limits)


if __name__ == "__main__":
    protocol.parse = _parse_twice
    main()
