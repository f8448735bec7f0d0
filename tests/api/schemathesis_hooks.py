"""Loaded by schemathesis: which requests the OpenAPI document cannot rule out, though its words do."""

from __future__ import annotations

import schemathesis

from server import jsontext

MAX_LEVELS = jsontext.MAX_DEPTH - 3
"""``data`` of a command of a batch lies three levels down."""


def fits(value: object, level: int = 0) -> bool:
    """JSON Schema has neither a depth nor an integer that is told from a float by how it is written."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return level < MAX_LEVELS and all(fits(each, level + 1) for each in inner)
    return not isinstance(value, int) or jsontext.MIN_INTEGER <= value <= jsontext.MAX_INTEGER


@schemathesis.hook
def filter_body(context: schemathesis.HookContext, body: object) -> bool:
    return fits(body)
