"""Every test of this folder runs under uvloop, as nodes do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


@pytest.fixture(autouse=True)
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop


@pytest.fixture(params=["fast", "plain"])
def lane(request: pytest.FixtureRequest) -> str:
    """Our protocol classes with the hand-off, or uvicorn's own."""
    return str(request.param)
