"""What a node answers: the WebSocket endpoint of the protocol, and the plain HTTP around it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, MutableMapping
from importlib.resources import files
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server import closing, protocol
from server.auth import TOKEN_SUBPROTOCOL, Authenticator, Credentials, Identity, Refused, credentials
from server.connection import Connection
from server.fastlane import EXTENSION
from server.hub import LocalHub
from server.origin import origin_is_allowed
from server.plainlane import PlainConnection, Receive, Send

logger = logging.getLogger("server.endpoints")

JSON, MSGPACK = "roomcast.json.v1", "roomcast.msgpack.v1"

Scope = MutableMapping[str, Any]


class ProtocolEndpoint:
    """An ASGI application for WebSocket connections that speak the client protocol (docs/protocol.md)."""

    def __init__(self, hub: LocalHub, authenticator: Authenticator) -> None:
        self._hub = hub
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._hub.settings
        given = credentials(scope)
        await receive()  # websocket.connect
        origin, host = given.headers.get("origin"), given.headers.get("host")
        if not origin_is_allowed(origin, host, settings.origins, settings.dev):
            logger.info("refused the origin %r", origin)
            await _forbid(scope, send)
            return
        refused = None
        identity = Identity(None)
        try:
            identity = await self._authenticator.identify(given)
        except Refused as error:
            refused = str(error)
        subprotocol = next((offered for offered in given.subprotocols if offered in (JSON, MSGPACK)), None)
        accept: dict[str, Any] = {"type": "websocket.accept"}
        if subprotocol is not None:
            accept["subprotocol"] = subprotocol
        await send(accept)
        if refused is not None:
            logger.info("refused a connection: %s", refused)
            await send({"type": "websocket.close", "code": closing.UNAUTHENTICATED, "reason": refused[:123]})
            return
        await self._serve(scope, receive, send, given, identity, subprotocol == MSGPACK)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, given: Credentials, identity: Identity, packed: bool
    ) -> None:
        hub = self._hub
        session = given.query.get("session")
        if session is not None and not protocol.session_is_valid(session):
            session = None
        fast = scope.get("extensions", {}).get(EXTENSION, {}).get("connection")
        connection: Connection
        if fast is not None and fast.owns(receive, send):
            if fast.closed:
                return
            connection = fast
            connection.packed = packed
            hub.attach(connection, scope["path"], identity.user, session)
            fast.hand_off()
        else:
            plain = PlainConnection(hub.settings.outbound_bytes)
            plain.packed = packed
            hub.attach(plain, scope["path"], identity.user, session)
            await plain.run(receive, send)


async def _forbid(scope: Scope, send: Send) -> None:
    """HTTP 403 before the upgrade, with a text where the server can send one."""
    if "websocket.http.response" in scope.get("extensions", {}):
        body = b"This Origin may not connect here: add it to ROOMCAST_ORIGINS.\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close"})


def http_routes(hub: LocalHub) -> list[Route]:
    """/healthz /readyz /metrics /roomcast.js, and in dev mode /demo."""

    async def healthz(request: Request) -> Response:
        """The process runs and its loop turns."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        """The node may get new connections: broker connected, probe fresh, not draining."""
        body = {"ready": hub.ready, "reason": hub.reason, "node": hub.broker.node_id}
        return Response(orjson.dumps(body) + b"\n", 200 if hub.ready else 503, media_type="application/json")

    async def metrics(request: Request) -> Response:
        return Response(hub.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/roomcast.js", _static(without_comments(_asset("roomcast.js")), JAVASCRIPT, CLIENT_HEADERS)),
    ]
    if hub.settings.dev:
        routes += [
            Route("/demo", _static(_asset("demo.html"), "text/html; charset=utf-8", DEMO_HEADERS)),
            Route("/demo.css", _static(_asset("demo.css"), "text/css; charset=utf-8", DEMO_HEADERS)),
            Route("/demo.js", _static(_asset("demo.js"), JAVASCRIPT, DEMO_HEADERS)),
            Route("/demo-room.js", _static(_asset("demo-room.js"), JAVASCRIPT, DEMO_HEADERS)),
        ]
    return routes


JAVASCRIPT = "text/javascript; charset=utf-8"
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
    """JavaScript without the comments that have lines of their own: a third of the client, and no browser reads it."""
    return re.sub(rb"^[ \t]*(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)\n", b"", source, flags=re.MULTILINE | re.DOTALL)


def _asset(name: str) -> bytes:
    return files("server").joinpath("static", name).read_bytes()


def _static(content: bytes, media_type: str, headers: dict[str, str]) -> Callable[[Request], Any]:

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return endpoint


__all__ = ["JSON", "MSGPACK", "TOKEN_SUBPROTOCOL", "ProtocolEndpoint", "http_routes"]
