"""The status page: what is served at ``/status``, and the socket that keeps it live.

The page itself is a form and says nothing. Whoever gives a key with the scope ``read`` gets a ticket from the API and
opens the socket with it; then the page shows what server/watching.py tells. Without API keys there is none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from server import closing, ticket
from server.auth import credentials
from server.origin import origin_is_allowed

if TYPE_CHECKING:
    from server.hub import LocalHub

logger = logging.getLogger("server.status")

SUBPROTOCOL: Final = "roomcast.status.v1"
MAX_S: Final = 3600.0
"""Then the page asks for a new ticket: a key that was taken away is good for no longer than this."""
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
ASSETS: Final = (
    ("/status", "status.html", "text/html; charset=utf-8"),
    ("/status/status.css", "status.css", "text/css; charset=utf-8"),
    ("/status/status.js", "status.js", "text/javascript; charset=utf-8"),
    ("/status/cluster.js", "status-cluster.js", "text/javascript; charset=utf-8"),
)


def status_routes(hub: LocalHub) -> list[BaseRoute]:
    """``/status`` and what belongs to it, where there are API keys."""
    if not hub.settings.api_keys:
        return []
    return [*(_asset(*asset) for asset in ASSETS), WebSocketRoute("/status/feed", _feed(hub))]


def _asset(path: str, name: str, media_type: str) -> Route:
    content = files("server").joinpath("static", name).read_bytes()

    async def asset(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, asset)


def _feed(hub: LocalHub) -> Callable[[WebSocket], Awaitable[None]]:
    async def feed(websocket: WebSocket) -> None:
        given = credentials(websocket.scope)
        if not origin_is_allowed(given.headers.get("origin"), given.headers.get("host"), (), dev=False):
            await websocket.close()  # before the accept: 403
            return
        name = ticket.check(given.token or "", hub.settings.api_keys, time.time())
        offered = SUBPROTOCOL if SUBPROTOCOL in given.subprotocols else None
        await websocket.accept(offered)
        if name is None:
            await websocket.close(closing.UNAUTHENTICATED, "the ticket is not valid: ask for a new one")
            return
        logger.info("somebody watches the status page with the key %s", name)
        await _show(hub, websocket)

    return feed


async def _show(hub: LocalHub, websocket: WebSocket) -> None:
    """Until the page goes, says anything at all (it has nothing to say), or has watched for long enough."""
    views = _Latest()
    stop = hub.cluster.watching.watch(views.put)
    sending = asyncio.create_task(_send(websocket, views))
    try:
        async with asyncio.timeout(MAX_S):
            await websocket.receive()
    except TimeoutError:
        pass
    finally:
        stop()
        sending.cancel()
        await asyncio.wait((sending,))
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):  # it has gone
        await websocket.close(closing.NORMAL)


async def _send(websocket: WebSocket, views: _Latest) -> None:
    with contextlib.suppress(WebSocketDisconnect, OSError):
        while True:
            await websocket.send_text((await views.get()).decode())


class _Latest:
    """Holds one view: a page that reads slowly misses some and costs nothing."""

    def __init__(self) -> None:
        self._view = b""
        self._new = asyncio.Event()

    def put(self, view: bytes) -> None:
        self._view = view
        self._new.set()

    async def get(self) -> bytes:
        await self._new.wait()
        self._new.clear()
        return self._view
