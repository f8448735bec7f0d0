"""What one operation of the HTTP API is. The routes, the checks and the OpenAPI document are all made from this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from server.api.keys import Scope
from server.api.values import Asked, Given, Reply
from server.hub import LocalHub


class Call(NamedTuple):
    """One request that may be carried out."""

    hub: LocalHub
    caller: str
    """Name of the key."""
    retry_key: str | None
    """From the header Idempotency-Key."""


class Operation(NamedTuple):
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Below /api/v1."""
    scope: Scope
    summary: str
    description: str
    takes: type[Given] | type[Asked]
    """The body (``Given``) or the query (``Asked``)."""
    reply: type[Reply]
    run: Callable[[Call, Any], Awaitable[dict[str, Any]]]
    """Takes a valid ``takes``. Raises Problem, and BrokerError."""
    cost: Callable[[Any], int] = lambda given: 1
    """How many requests it counts as."""
    retryable: bool = False
    """Takes the header Idempotency-Key."""

    @property
    def has_body(self) -> bool:
        return issubclass(self.takes, Given)
