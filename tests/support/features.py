"""Which of the reference documents' features a test covers (docs/handlers.md; ``scripts/features`` prints the table)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def covers(*ids: str) -> Callable[[F], F]:
    """Says so where people and ``scripts/features`` read it; changes nothing about the test."""
    assert ids, "name at least one id"
    return lambda test: test
