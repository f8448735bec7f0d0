"""The application's say in what clients do in rooms: asks its authorizers, runs its hooks (server/gate.py)."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final

import orjson
from starlette.types import Message, Scope

from server import jsontext, protocol
from server.connection import Connection
from server.frames import Batch, Prepared
from server.handlers.connection import WebSocket
from server.handlers.registrations import ForRooms, Registrations
from server.handlers.threads import call
from server.hub import LocalHub
from server.identity import Action
from server.names import room_matches
from server.refusal import Refusal, forbidden

logger = logging.getLogger("server.handlers")

HOOKS: Final = "join and leave hooks"
"""The name of the tasks in which these run."""


class Hooks:
    """A :class:`server.gate.Gate`."""

    def __init__(self, registered: Registrations, hub: LocalHub) -> None:
        self._registered = registered
        self._hub = hub
        self.broadcast = registered.client_broadcast

    @property
    def wanted(self) -> bool:
        """Whether there is anybody to ask: connections then keep what handlers may want to know of them."""
        of = self._registered
        return bool(of.authorizers or of.message_hooks or of.join_hooks or of.leave_hooks)

    def review(
        self, connection: Connection, actions: tuple[Action, ...], room: str, request: protocol.Request
    ) -> Coroutine[Any, Any, protocol.Request] | None:
        authorizers = _matching(self._registered.authorizers, room)
        hooks = _matching(self._registered.message_hooks, room) if isinstance(request, protocol.Message) else []
        if not authorizers and not hooks:
            return None
        return self._review(connection, actions, room, request, authorizers, hooks)

    async def _review(
        self,
        connection: Connection,
        actions: tuple[Action, ...],
        room: str,
        request: protocol.Request,
        authorizers: list[Callable[..., Any]],
        hooks: list[Callable[..., Any]],
    ) -> protocol.Request:
        conn = self._conn(connection)
        for action, authorizer in itertools.product(actions, authorizers):
            if not await self._ask(conn, authorizer, conn, room, action):
                raise forbidden(action)
        if hooks and isinstance(request, protocol.Message):
            data = orjson.loads(request.data)
            for hook in hooks:
                answer = await self._ask(conn, hook, conn, room, data)
                data = data if answer is None else answer
            try:
                return dataclasses.replace(request, data=self._encoded(data))
            except ValueError as error:
                logger.error(
                    "a message hook returned what cannot be published: %s, request id %s", error, conn.request_id
                )
                raise Refusal("internal", f"the application failed on this request ({conn.request_id})") from error
        return request

    def _encoded(self, data: object) -> bytes:
        text = jsontext.encode(data)
        if len(text) > self._hub.settings.max_message_bytes:
            raise Refusal("too_large", "the message is too large after the application has changed it")
        return text

    async def _ask(self, conn: WebSocket, function: Callable[..., Any], *args: Any) -> Any:
        """What an authorizer or a hook says; its failing refuses the request, and nothing else."""
        try:
            return await call(function, *args)
        except Refusal:
            raise
        except Exception as error:
            logger.exception("%s failed, request id %s", _name(function), conn.request_id)
            raise Refusal("internal", f"the application failed on this request ({conn.request_id})") from error

    async def allows(self, connection: Connection, action: Action, room: str) -> bool:
        conn = self._conn(connection)
        try:
            for authorizer in _matching(self._registered.authorizers, room):
                if not await self._ask(conn, authorizer, conn, room, action):
                    return False
        except Refusal:
            return False
        return True

    def joined(self, connection: Connection, room: str) -> None:
        self._tell(self._registered.join_hooks, connection, room)

    def left(self, connection: Connection, room: str) -> None:
        self._tell(self._registered.leave_hooks, connection, room)

    def _tell(self, hooks: Iterable[ForRooms], connection: Connection, room: str) -> None:
        functions = _matching(hooks, room)
        if functions:
            self._hub.tasks.spawn(self._told(functions, self._conn(connection), room), HOOKS)

    async def _told(self, functions: list[Callable[..., Any]], conn: WebSocket, room: str) -> None:
        for function in functions:
            try:
                await call(function, conn, room)
            except Exception:
                logger.exception("%s failed, request id %s", _name(function), conn.request_id)

    def _conn(self, connection: Connection) -> WebSocket:
        assert isinstance(connection.handler, WebSocket), "connections keep one while hooks are wanted"
        return connection.handler


def _matching(registered: Iterable[ForRooms], room: str) -> list[Callable[..., Any]]:
    return [each.function for each in registered if room_matches(each.pattern, room)]


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def hub_connection(connection: Connection, scope: Scope, hub: LocalHub) -> WebSocket:
    """What hooks get for a connection on ``/ws``, which has no handler of its own: it can be asked, sent to and closed,
    but what it receives is the hub's."""
    websocket = WebSocket(scope, _nothing_to_receive, partial(_send, connection), hub=hub)
    websocket.serve_hub(connection)
    return websocket


async def _nothing_to_receive() -> Message:
    raise RuntimeError("messages of this connection go to the hub: use @hub.on_message, or a path of your own")


async def _send(connection: Connection, event: Message) -> None:
    if event["type"] == "websocket.close":
        connection.close(event["code"], event["reason"])
    elif event.get("text") is not None:
        connection.send(Batch([Prepared(event["text"].encode())]))
    else:
        raise RuntimeError("this connection speaks the hub's protocol: send it JSON text")
