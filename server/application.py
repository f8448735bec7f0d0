"""The public ``Hub``: constructed at import time by an application, bound to a running node later.

    hub = Hub()

    @hub.on("/chat/[room]")
    async def chat(conn, message):
        await hub.broadcast(conn.path, message)

``ROOMCAST_APP=module:hub roomcast serve`` runs it; ``hub.asgi`` is the same as an ASGI application, to be mounted into
another one whose lifespan is ``hub.lifespan``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from broker.base import Position
from server import protocol
from server.app import Node, cors_origins, create_app
from server.configuration import load_settings
from server.handlers.connection import WebSocket
from server.handlers.lifecycle import GRACE_S
from server.handlers.registrations import Registrations
from server.handlers.threads import from_threads_too
from server.hub import LocalHub
from server.identity import user_text
from server.payload import decode_message
from server.settings import Settings, SettingsError

NOT_RUNNING = (
    "the hub is not running: start it with `roomcast serve --app module:hub`, or give the application that mounts "
    "hub.asgi the lifespan: FastAPI(lifespan=hub.lifespan)"
)
DEFAULT_REVOCATION_S = 24 * 3600.0


class Hub(Registrations):
    """All registrations are those of :class:`server.handlers.registrations.Registrations`. What talks to clients is
    cluster-wide, wherever they are connected, and can be called from coroutines and from threads alike; it raises
    :class:`roomcast.Unavailable` while the broker is away."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        app: Any = None,
        routes: Sequence[BaseRoute] = (),
        middleware: Sequence[Middleware] = (),
        allowed_origins: Sequence[str] = (),
        client_broadcast: bool = False,
        handler_grace_s: float = GRACE_S,
    ) -> None:
        """``settings``: for ``hub.asgi``; None reads ROOMCAST_* when it starts. ``app``: a web application (Starlette,
        FastAPI, or anything with ``config["CORS_ORIGINS"]``) whose CORS origins may connect, too."""
        super().__init__(
            routes=routes,
            middleware=middleware,
            allowed_origins=allowed_origins,
            client_broadcast=client_broadcast,
            handler_grace_s=handler_grace_s,
        )
        self._settings = settings
        self._app = app
        self._node: Node | None = None

    # Running.

    def node(self, settings: Settings) -> Node:
        """Make the node that this hub's functions speak through from now on. Raises SettingsError."""
        self.allowed_origins += [origin for origin in cors_origins(self._app) if origin not in self.allowed_origins]
        self._node = create_app(settings, registered=self)
        return self._node

    @contextlib.asynccontextmanager
    async def running(self, settings: Settings | None = None) -> AsyncIterator[Node]:
        """A node of this hub inside the running application, as long as the block."""
        node = self.node(settings or self._settings or load_settings({}, os.environ))
        try:
            async with node.running():
                yield node
        finally:
            self._node = None

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """The lifespan for an application that mounts ``hub.asgi``."""
        async with self.running():
            yield

    @property
    def asgi(self) -> HubApplication:
        """The hub as an ASGI application: alone, or mounted with :meth:`lifespan` in the outer one."""
        return HubApplication(self)

    @property
    def bound(self) -> Node:
        """The node it speaks through. Raises RuntimeError if there is none."""
        if self._node is None:
            raise RuntimeError(NOT_RUNNING)
        return self._node

    @property
    def local(self) -> LocalHub:
        """The node's own hub. Raises RuntimeError if it does not run."""
        assert self.loop is not None
        return self.bound.hub

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = self.bound.loop
        if loop is None:
            raise RuntimeError(NOT_RUNNING)
        return loop

    # To clients, cluster-wide.

    @from_threads_too
    async def broadcast(self, path: str, text: str, exclude: WebSocket | None = None) -> None:
        """A text to every connection on a path, as it stands (on /ws as a ``broadcast`` event). At most once, never
        logged."""
        await self.local.cluster.broadcast(path, text, exclude.connection if exclude is not None else None)

    @from_threads_too
    async def broadcast_json(self, path: str, data: Any, exclude: WebSocket | None = None) -> None:
        """The same with JSON."""
        await self.local.cluster.broadcast_json(path, data, exclude.connection if exclude is not None else None)

    @from_threads_too
    async def publish(self, room: str, data: Any) -> Position:
        """Append a message to the room's log and send it to the members; ``user_id`` is null. Returns its position."""
        return await self.local.cluster.publish(_room(room), data)

    @from_threads_too
    async def history(self, room: str, limit: int = 50) -> list[dict[str, Any]]:
        """The newest messages of a room, oldest first: dicts with offset, user_id, ts and data."""
        broker = self.local.broker
        top = (await broker.read(_room(room), None, 0)).top
        messages: list[dict[str, Any]] = []
        since = max(0, top.offset - limit)
        while since < top.offset:
            page = await broker.read(room, since, 100)
            if not page.entries:
                break
            for entry in page.entries:
                _, tail = decode_message(entry.payload)
                messages.append({"offset": entry.offset, **json.loads(b"{" + tail)})
            since = page.entries[-1].offset
        return messages

    @from_threads_too
    async def send_to_user(self, user_id: int | str, data: Any) -> None:
        """To every connection of a user on a protocol endpoint. At most once, never logged."""
        await self.local.cluster.send_to_user(user_text(user_id), data)

    # Presence.

    @from_threads_too
    async def get_online_users(self, room: str | None = None) -> list[int | str]:
        """Who is connected anywhere, or is in a room, once each however many tabs they have; integers first."""
        roster = await self.local.broker.presence.roster(None if room is None else _room(room))
        users: list[int | str] = [json.loads(user) for user in roster.users]
        return sorted(users, key=lambda user: (isinstance(user, str), user))

    @from_threads_too
    async def is_user_online(self, user_id: int | str) -> bool:
        return await self.local.broker.presence.online(user_text(user_id))

    # Sending away.

    @from_threads_too
    async def disconnect(
        self, user_id: int | str | None = None, *, session: str | None = None, token_id: str | None = None
    ) -> None:
        """Close connections on all nodes with 4004; they may come back. ``token_id`` is a token's claim ``jti``."""
        user = None if user_id is None else user_text(user_id)
        await self.local.cluster.disconnect(user, session=session, token_id=token_id)

    @from_threads_too
    async def revoke(
        self,
        user_id: int | str | None = None,
        *,
        session: str | None = None,
        token_id: str | None = None,
        for_s: float = DEFAULT_REVOCATION_S,
    ) -> None:
        """The same, and whoever brings it again is refused on every node, for as long as tokens live. Of a user: what
        was issued until now (claim ``iat``); a newer token is good."""
        given: list[tuple[Any, str]] = []
        if user_id is not None:
            given.append(("user", user_text(user_id)))
        given += [(kind, value) for kind, value in (("session", session), ("token", token_id)) if value is not None]
        if not given:
            raise ValueError("say what to revoke: a user, session or token_id")
        for kind, value in given:
            await self.local.revocations.revoke(kind, value, for_s)

    @from_threads_too
    async def recheck_rooms(self, user_id: int | str | None = None, room: str | None = None) -> None:
        """Ask authorizers again, on all nodes, whether connections may be in their rooms: of one user, in rooms that
        match a pattern. Who may not is put out."""
        await self.local.cluster.recheck_rooms(None if user_id is None else user_text(user_id), room)


def _room(room: str) -> str:
    if not protocol.room_is_valid(room):
        raise ValueError(f"{room!r} is no room: it must be {protocol.ROOM_RULE}")
    return room


class HubApplication:
    """An object, not a method of the hub: servers tell by its ``__call__`` that it is ASGI 3."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(self._hub.running(), receive, send)
        else:
            await self._hub.bound(scope, receive, send)


async def _lifespan(running: Any, receive: Receive, send: Send) -> None:
    """The lifespan protocol of ASGI around a context manager."""
    await receive()
    try:
        async with running:
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except BaseException as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})


def load_hub(name: str) -> Hub:
    """The hub that ROOMCAST_APP names: ``module:hub``, or a YAML file. Raises SettingsError."""
    if name.endswith((".yaml", ".yml")):
        _import_from(str(Path(name).resolve().parent))
        hub = Hub()
        try:
            hub.add_yaml(name)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return hub
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise SettingsError(f"ROOMCAST_APP={name}: write module:hub, or a YAML file")
    _import_from(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # something that the application wants itself
        raise SettingsError(f"ROOMCAST_APP={name}: there is no module {module_name} here or installed") from None
    found = getattr(module, attribute, None)
    if not isinstance(found, Hub):
        raise SettingsError(f"ROOMCAST_APP={name}: {module_name} has no roomcast.Hub named {attribute}")
    return found


def _import_from(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
