"""What a node answers: the WebSocket endpoint of the protocol, and the plain HTTP around it."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, MutableMapping
from importlib.resources import files
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.websockets import WebSocketDisconnect

from server import events, protocol
from server.accepting import PLACE, Place
from server.api.endpoint import api_routes
from server.auth import Credentials, Refused
from server.connection import Connection
from server.denial import Denied, deny
from server.fastlane import EXTENSION
from server.frames import to_packed
from server.handlers.connection import JSON_SUBPROTOCOL as JSON
from server.handlers.connection import MSGPACK_SUBPROTOCOL as MSGPACK
from server.handlers.connection import WebSocket, route_path
from server.handlers.hooks import hub_connection
from server.handlers.lifecycle import Endpoint, Options, Site
from server.hub import LocalHub
from server.identity import ANONYMOUS, Identity
from server.plainlane import PlainConnection, Receive, Send
from server.status import status_routes
from server.upgrade import not_upgraded

logger = logging.getLogger("server.endpoints")

Scope = MutableMapping[str, Any]


class ProtocolEndpoint:
    """``/ws``: an ASGI application for connections that speak the client protocol (docs/protocol.md)."""

    def __init__(self, site: Site, *, keep: bool) -> None:
        """``keep``: hooks of the application want to know connections, so what they may ask is kept."""
        self._site = site
        self._keep = keep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        admission = self._site.admission
        await receive()  # websocket.connect
        refused: Refused | None = None
        identity, given = ANONYMOUS, None
        try:
            identity, given = await admission.admit(scope)
        except Denied as denied:
            self._site.hub.counts.refused[denied.reason] += 1
            await deny(scope, send, denied)
            return
        except Refused as error:
            refused = error
        subprotocol = next((offered for offered in scope.get("subprotocols") or () if offered in (JSON, MSGPACK)), None)
        accept: dict[str, Any] = {"type": "websocket.accept"}
        if subprotocol is not None:
            accept["subprotocol"] = subprotocol
        await send(accept)
        if refused is not None or given is None:
            assert refused is not None
            self._site.hub.counts.refused[refused.reason] += 1
            logger.info("refused a connection: %s", refused)
            if refused.retry_after_s:
                await send(_in_frame(events.backoff(refused.retry_after_s), subprotocol == MSGPACK))
            await send({"type": "websocket.close", "code": refused.code, "reason": str(refused)[:123]})
            return
        await self._serve(scope, receive, send, given, identity, subprotocol == MSGPACK)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, given: Credentials, identity: Identity, packed: bool
    ) -> None:
        hub = self._site.hub
        session = given.query.get("session")
        if session is not None and not protocol.session_is_valid(session):
            session = None
        fast = scope.get("extensions", {}).get(EXTENSION, {}).get("connection")
        if fast is not None and fast.owns(receive, send):
            if fast.closed:
                return
            self._attach(fast, scope, identity, session, packed)
            fast.hand_off()
        else:
            plain = PlainConnection(hub.settings.outbound_bytes)
            self._attach(plain, scope, identity, session, packed)
            await plain.run(receive, send)

    def _attach(
        self, connection: Connection, scope: Scope, identity: Identity, session: str | None, packed: bool
    ) -> None:
        hub = self._site.hub
        connection.packed = packed
        # Claims are for handlers; without any there is no use in keeping them.
        connection.identity = identity if self._keep else Identity(*identity[:-1])
        if self._keep:
            connection.handler = hub_connection(connection, scope, hub)
        hub.attach(connection, route_path(scope), identity.user, session)
        place: Place | None = scope.get(PLACE)
        if place is not None:
            place.entered(connection)


def kept_endpoint() -> Endpoint:
    """``/ws`` where the application has WebSocket middleware, which stays around a connection for all of its life."""

    async def session(websocket: WebSocket) -> None:
        offered = websocket.scope.get("subprotocols") or ()
        await websocket.accept(next((each for each in offered if each in (JSON, MSGPACK)), None))
        with contextlib.suppress(WebSocketDisconnect):
            while True:  # what arrives here is only the end: messages go to the hub
                websocket._raise_on_disconnect(await websocket.receive_event())

    return Endpoint(session, Options(protocol=True, takes_messages=False))


def _in_frame(event: bytes, packed: bool) -> dict[str, Any]:
    """One event before the connection is the hub's."""
    if packed:
        return {"type": "websocket.send", "bytes": to_packed(event)}
    return {"type": "websocket.send", "text": event.decode()}


async def _no_upgrade(request: Request) -> Response:
    """HTTP where a WebSocket handshake belongs."""
    told = not_upgraded(request.scope["http_version"], request.headers.raw)
    headers = {"upgrade": "websocket", "connection": "upgrade"}
    return Response(orjson.dumps(told) + b"\n", 426, headers, "application/json")


def operators_routes(hub: LocalHub) -> list[Route]:
    """/healthz /readyz /metrics."""

    async def healthz(request: Request) -> Response:
        """The process runs and its loop turns."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        """The node may get new connections: broker connected, probe fresh, not draining."""
        body = {"ready": hub.ready, "reason": hub.reason, "node": hub.broker.node_id}
        return Response(orjson.dumps(body) + b"\n", 200 if hub.ready else 503, media_type="application/json")

    async def metrics(request: Request) -> Response:
        return Response(hub.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def http_routes(hub: LocalHub) -> list[BaseRoute]:
    """Those of operators (/metrics only where it has no port of its own), /roomcast.js, with keys for it /api/v1, and
    in dev mode /demo."""
    apart = {"/metrics"} if hub.settings.metrics_port else set()
    routes: list[BaseRoute] = [
        *(route for route in operators_routes(hub) if route.path not in apart),
        Route("/ws", _no_upgrade, methods=["GET", "POST"]),
        Route("/roomcast.js", _static(without_comments(_asset("roomcast.js")), JAVASCRIPT, CLIENT_HEADERS)),
        *api_routes(hub),
        *status_routes(hub),
    ]
    if hub.settings.dev:
        routes += [
            Route("/demo", _static(_asset("demo.html"), "text/html; charset=utf-8", DEMO_HEADERS)),
            Route("/demo.css", _static(_asset("demo.css"), "text/css; charset=utf-8", DEMO_HEADERS)),
            *(Route(f"/{name}", _static(_asset(name), JAVASCRIPT, DEMO_HEADERS)) for name in DEMO_SCRIPTS),
        ]
    return routes


def front_door(hub: LocalHub) -> list[Route]:
    """In dev mode ``/`` leads to the demo, unless the application has something there."""

    async def root(request: Request) -> Response:
        return RedirectResponse("demo" + (f"?{request.url.query}" if request.url.query else ""))

    return [Route("/", root)] if hub.settings.dev else []


JAVASCRIPT = "text/javascript; charset=utf-8"
DEMO_SCRIPTS = ("demo.js", "demo-banner.js", "demo-room.js", "demo-message.js")
CLIENT_HEADERS = {
    "access-control-allow-origin": "*",  # a page of the application's own origin may import it, too
    "cache-control": "max-age=300",
    "x-content-type-options": "nosniff",
}
DEMO_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def without_comments(source: bytes) -> bytes:
    """JavaScript without the comments that end a line: over a third of the client, and no browser reads it."""
    alone = rb"^[ \t]*(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)\n"
    return re.sub(alone + rb"|[ \t]+//[ ][^\n]*", b"", source, flags=re.MULTILINE | re.DOTALL)


def _asset(name: str) -> bytes:
    return files("server").joinpath("static", name).read_bytes()


def _static(content: bytes, media_type: str, headers: dict[str, str]) -> Callable[[Request], Any]:

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return endpoint
