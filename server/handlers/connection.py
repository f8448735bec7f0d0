"""What handlers get: a Starlette ``WebSocket`` with the rest added.

One object for all styles of handlers; the names are those of the frameworks that people come from, so some things have
two (``params`` and ``path_params``). ``send`` and ``receive`` carry messages, of the kind that ``send_type`` and
``receive_type`` say; ``send_event`` and ``receive_event`` carry raw ASGI events.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, cast

from starlette.datastructures import QueryParams
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect, WebSocketState

from server import closing, protocol
from server.accepting import PLACE, Place
from server.connection import Connection, Handler
from server.fastlane import EXTENSION
from server.handlers.messages import MessageSocket, MessageType
from server.handlers.plain import PlainHandlerConnection
from server.handlers.threads import from_threads_too
from server.hub import LocalHub
from server.identity import ANONYMOUS, Identity
from server.refusal import Refusal

CaughtCodes = Collection[int] | Any
"""Close codes, or the builtin ``all``."""
JSON_SUBPROTOCOL: Final = "roomcast.json.v1"
MSGPACK_SUBPROTOCOL: Final = "roomcast.msgpack.v1"
NORMAL_CODES: Final = (1000, 1001, 1005)
"""With these a client left as it should: 1005 is what browsers send for ``close()`` without a code."""

current: ContextVar[WebSocket] = ContextVar("current")
"""The connection whose handler runs."""
_request_id = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch


class WebSocket(MessageSocket, Handler):
    takes_messages = True

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        hub: LocalHub | None = None,
        protocol_endpoint: bool = False,
        receive_type: MessageType = "text",
        send_type: MessageType = "text",
        caught_close_codes: CaughtCodes = NORMAL_CODES,
        auto_accepted: bool = False,
    ) -> None:
        """Without a ``hub`` it is a WebSocket alone: no broadcast reaches it and it joins no room."""
        super().__init__(scope, receive, send, receive_type=receive_type, send_type=send_type)
        self.hub = hub
        self.identity = ANONYMOUS
        self.connection: Connection | None = None
        """What the hub knows of it, once it has been accepted."""
        self.caught_close_codes = caught_close_codes
        self.when_gone: Callable[[], object] | None = None
        """Called when the peer is gone."""
        self._gone = False
        self.pump: asyncio.Task[None] | None = None
        self._protocol_endpoint = protocol_endpoint
        self._session_key: str | None = None
        self._auto_accepted = auto_accepted
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _request_id(given) else secrets.token_hex(8)

    def admitted(self, identity: Identity, session_key: str | None) -> None:
        """Who it is. Called before the handler sees it."""
        self.identity = identity
        self._session_key = session_key

    def serve_hub(self, connection: Connection) -> None:
        """It stands for a connection that has been accepted and is served by the hub alone."""
        self.client_state = self.application_state = WebSocketState.CONNECTED
        self.takes_messages = False
        self.connection = connection
        self.identity = connection.identity

    # Who and where.

    @property
    def user(self) -> Any:
        """The application's own object, a :class:`roomcast.User`, what Starlette's AuthenticationMiddleware found, or
        None."""
        identity = self.connection.identity if self.connection is not None else self.identity
        return identity.principal if identity.principal is not None else self.scope.get("user")

    @property
    def user_id(self) -> int | str | None:
        """As in the token: 42 and "42" are two users."""
        user = self.identity.user
        return None if user is None else cast("int | str", json.loads(user))

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the path: of ``/chat/[room]`` ``params["room"]``."""
        return self.path_params

    @property
    def path(self) -> str:
        """As the hub knows it: without the prefix under which the hub is mounted."""
        return route_path(self.scope)

    @property
    def addr(self) -> tuple[str, int] | None:
        """(ip, port) of the client, or what a trusted proxy says it is."""
        return None if self.client is None else (self.client.host, self.client.port)

    @property
    def query_parameters(self) -> QueryParams:
        return self.query_params

    # Opening and closing.

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Where the connection was accepted for you (``auto_accept``), one more accept changes nothing."""
        if self._auto_accepted and self.application_state is WebSocketState.CONNECTED:
            if subprotocol or headers:
                raise RuntimeError("already accepted: register with auto_accept=False to choose subprotocol or headers")
            return
        if self.client_state is WebSocketState.CONNECTING:
            await self.receive_event()
        event = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": list(headers or ())}
        await self.send_event(event)
        await self._attach(packed=subprotocol == MSGPACK_SUBPROTOCOL)

    async def _attach(self, packed: bool) -> None:
        """Become part of the node: broadcasts to the path arrive (from here on, the handler's own first one, too), and
        operators can disconnect it."""
        hub = self.hub
        if hub is None:
            return
        connection: Connection
        fast = self.scope.get("extensions", {}).get(EXTENSION, {}).get("connection")
        if fast is not None and fast.owns(self._receive, self._send):
            if fast.closed:
                return
            connection = fast
        else:
            plain = PlainHandlerConnection(hub.settings.outbound_bytes, self._send)
            self.pump = asyncio.create_task(plain.run(self._receive, self._send))
            self._receive, self._send = plain.receive_event, plain.send_asgi  # type: ignore[assignment]
            connection = plain
        connection.raw = not self._protocol_endpoint
        connection.packed = packed and self._protocol_endpoint
        connection.identity = self.identity
        connection.handler = self
        self.connection = connection
        subscribing = hub.attach(connection, self.path, self.identity.user, self._session_key)
        place: Place | None = self.scope.get(PLACE)
        if place is not None:
            place.entered(connection)
        if subscribing:
            await asyncio.wait(subscribing)  # at most a second: without the broker it fails

    @from_threads_too
    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """A second close raises RuntimeError; see :meth:`ensure_closed`."""
        await self.send_event({"type": "websocket.close", "code": code, "reason": reason or ""})

    @from_threads_too
    async def ensure_closed(self, code: int = 1000, reason: str | None = None) -> None:
        """Close if that has not been done yet, by either side."""
        if self.is_open or self.application_state is WebSocketState.CONNECTING:
            try:
                if self.client_state is WebSocketState.CONNECTING:
                    await self.receive_event()
                await self.close(code, reason)
            except (WebSocketDisconnect, OSError):
                self.application_state = WebSocketState.DISCONNECTED

    @from_threads_too
    async def reject(self, status: int = 403, text: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Refuse with an HTTP response, before the accept. After it (``auto_accept``) it is too late for that, and the
        connection closes with 1008."""
        if self.application_state is not WebSocketState.CONNECTING:
            await self.close(closing.POLICY, text or "rejected")
            return
        if self.client_state is WebSocketState.CONNECTING:
            await self.receive_event()
        self.close_code = closing.POLICY
        if (text or status != 403) and "websocket.http.response" in self.scope.get("extensions", {}):
            await self.send_denial_response(PlainTextResponse(text, status, headers))
        else:
            await self.send_event({"type": "websocket.close", "code": closing.NORMAL, "reason": ""})

    async def send_denial_response(self, response: Response) -> None:
        if "websocket.http.response" not in self.scope.get("extensions", {}):
            raise RuntimeError("The server doesn't support the Websocket Denial Response extension.")
        await response(self.scope, self.receive_event, self.send_event)

    @property
    def is_open(self) -> bool:
        """Accepted, and closed by neither side as far as this handler has seen."""
        connected = WebSocketState.CONNECTED
        return self.application_state is connected and self.client_state is connected and not self._gone

    async def __aenter__(self) -> WebSocket:
        if self.application_state is not WebSocketState.CONNECTED:
            await self.accept()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, WebSocketDisconnect):
            return self.catches(error.code)
        await self.ensure_closed(closing.NORMAL if error is None else closing.INTERNAL_ERROR)
        return False

    def catches(self, code: int) -> bool:
        """Whether a client that leaves with this code is no error to this handler."""
        caught = self.caught_close_codes
        return caught is builtins.all or code in caught

    # Rooms.

    @from_threads_too
    async def join(self, room: str) -> None:
        """Put this connection into a room: its messages, typing and receipts arrive as frames of docs/protocol.md. The
        application decides here, so authorizers are not asked. Raises :class:`roomcast.Refusal`, and
        :class:`roomcast.Unavailable` if the broker is away."""
        hub, connection = self._attached()
        if not protocol.room_is_valid(room):
            raise Refusal("invalid_room", f"a room is {protocol.ROOM_RULE}")
        member = hub.rooms.has(room, connection)
        waiting = hub.rooms.join(connection, protocol.Join(None, room))
        if waiting is not None:
            await waiting
        if hub.gate is not None and not member and hub.rooms.has(room, connection):
            hub.gate.joined(connection, room)

    @from_threads_too
    async def leave(self, room: str) -> None:
        """Idempotent."""
        hub, connection = self._attached()
        if hub.rooms.has(room, connection):
            hub.rooms.leave(connection, room)
            hub.left(connection, room)

    def _attached(self) -> tuple[LocalHub, Connection]:
        if self.hub is None or self.connection is None:
            raise RuntimeError("this connection belongs to no running hub: register its handler with one, accept first")
        return self.hub, self.connection

    # From the hub.

    def lost(self, code: int) -> None:
        self.close_code = self.close_code or code
        self._gone = True
        if self.when_gone is not None:
            self.when_gone()


def route_path(scope: Mapping[str, Any]) -> str:
    """The path within the application that the hub is: without what it is mounted under."""
    path, root = cast(str, scope["path"]), cast(str, scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path
