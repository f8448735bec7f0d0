"""What an application may have a say in, as the hub sees it. The hub calls; server/handlers/hooks.py answers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from server import protocol
from server.connection import Connection
from server.identity import Action


class Gate(Protocol):
    broadcast: bool
    """Clients may use the op ``broadcast``."""

    def review(
        self, connection: Connection, actions: tuple[Action, ...], room: str, request: protocol.Request
    ) -> Coroutine[Any, Any, protocol.Request] | None:
        """Ask the application about a request; the coroutine gives the request as it is to be carried out or raises
        :class:`server.refusal.Refusal`. None if nobody has registered for this room."""

    async def allows(self, connection: Connection, action: Action, room: str) -> bool:
        """Whether the authorizers agree (again). Never raises: an authorizer that fails has refused."""

    def joined(self, connection: Connection, room: str) -> None:
        """The connection has become a member."""

    def left(self, connection: Connection, room: str) -> None:
        """It is none any more."""
