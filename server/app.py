"""The composition root: settings and an application's registrations in, an ASGI application out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.websockets import WebSocketDisconnect

from broker import broker_from_url
from broker.base import Broker
from server import vitals
from server.accepting import PLACE, Accepting
from server.admission import Admission
from server.auth import Authenticate, Authenticator, Refused
from server.denial import Denied, deny
from server.endpoints import ProtocolEndpoint, Scope, front_door, http_routes, kept_endpoint
from server.fastlane import EXTENSION, FastConnection
from server.handlers.connection import route_path
from server.handlers.hooks import HOOKS, Hooks
from server.handlers.lifecycle import CANCELLED_S, SITE, Site
from server.handlers.registrations import Registrations
from server.handlers.threads import call
from server.heartbeat import Heartbeat
from server.hub import LocalHub
from server.identity import Identity
from server.jwks import RemoteKeys
from server.metrics import Metrics
from server.plainlane import Receive, Send
from server.refusal import Refusal
from server.settings import Settings, SettingsError

logger = logging.getLogger("server.app")

NOBODY_COULD_CONNECT = (
    "nobody could connect: set ROOMCAST_SECRET (clients bring a JWT signed with it), ROOMCAST_JWKS or "
    "ROOMCAST_SESSION_SECRET, give the application an @hub.authenticate, "
    "or ROOMCAST_DEV=1 on your own machine (anybody is whoever ?user= says)"
)
SHUTDOWN_HOOKS_S = 5.0
"""How long all ``on_shutdown`` functions together may take."""
BROKER_FAREWELL_S = 3.0
"""What the broker takes at most to say goodbye: a command's timeout and a little."""
ENDS_S = CANCELLED_S + SHUTDOWN_HOOKS_S + BROKER_FAREWELL_S
"""From the end of the handlers' time to the end of :meth:`Node.running`, at the longest."""
ORIGINS_VARIABLE = "WS_ALLOWED_ORIGINS"
"""Heard beside ROOMCAST_ORIGINS, for those who come from a framework that calls it so."""


class Node:
    """One node as an ASGI application.

    ``/ws`` goes straight to its endpoint: no middleware stands between but the application's own, so the fast lane may
    hand connections off. Everything else is routed by Starlette.
    """

    def __init__(self, settings: Settings, broker: Broker, registered: Registrations | None = None) -> None:
        """Raises SettingsError if nobody could ever connect."""
        registered = registered or Registrations()
        self.settings = settings
        self.hub = LocalHub(settings, broker, Metrics())
        vitals.watch(self.hub)
        self.wheel = Heartbeat(settings.ping_s)
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it runs, once it does."""
        self._registered = registered
        self._site = Site(
            hub=self.hub,
            admission=self._admission(settings, registered),
            middleware=registered.ws_middleware,
            grace_s=registered.handler_grace_s,
        )
        hooks = Hooks(registered, self.hub)
        if hooks.wanted or hooks.broadcast:
            self.hub.gate = hooks
        self.hub.renew = self._renew
        self._accepting = Accepting(
            settings, lambda: self.hub.counts.connections, self._connections_of, lambda: self.hub.draining
        )
        if settings.max_connections_per_address:
            self.hub.on_lost = self._accepting.lost
        self._accepting.watch(self.hub.metrics)
        self._endpoint = (
            kept_endpoint() if registered.ws_middleware else ProtocolEndpoint(self._site, keep=hooks.wanted)
        )
        routes = [*http_routes(self.hub), *registered.routes(), *registered.extra_routes, *front_door(self.hub)]
        self._starlette = Starlette(routes=routes, lifespan=self._lifespan)
        self._websockets = Router(routes=routes)  # nothing wrapped around receive and send, as an application has it
        app: Any = self._dispatch
        for cls, args, kwargs in reversed(registered.middleware):
            app = cls(app, *args, **kwargs)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        try:
            place = self._accepting.place(scope)
        except Denied as denied:
            self.hub.counts.refused[denied.reason] += 1
            await receive()  # websocket.connect
            await deny(scope, send, denied)
            return
        try:
            await place.turn()
            fast: FastConnection | None = scope.get("extensions", {}).get(EXTENSION, {}).get("connection")
            if fast is not None:
                fast.limit(self.hub.raw_rates)
            if fast is None or not fast.closed:  # else the client has given up
                scope[PLACE] = place
                await self._serve(scope, receive, send)
        finally:
            place.left()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "app" in scope:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except WebSocketDisconnect as error:
            logger.info("a client left with %d, which its handler did not expect: %s", error.code, _notes(error))
        except Exception as error:
            # Once, and here: the request id is in the error's notes, and the connection has been closed.
            logger.exception("a handler failed on %s: %s", scope["path"], _notes(error))

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._starlette(scope, receive, send)
            return
        scope[SITE] = self._site
        if route_path(scope) == "/ws":
            await self._endpoint(scope, receive, send)
        else:
            scope.setdefault("app", self._starlette)
            await self._websockets(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.running():
            yield

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From the connection to the broker to the last handler's end."""
        self.loop = asyncio.get_running_loop()
        self.hub.tasks.spawn(self.wheel.run(), "heartbeat", forever=True)
        await self.hub.start()
        try:
            for function in self._registered.startup:
                await call(function)
            yield
        finally:
            await self.end_handlers(0)
            try:
                await self._shutdown_hooks()
            finally:
                await self.hub.close()

    async def end_handlers(self, grace_s: float) -> None:
        """Whatever handler or hook of a connection still runs after ``grace_s`` is cancelled."""
        hooks = self.hub.tasks.named(HOOKS)
        await self._site.close(grace_s, hooks)

    async def _shutdown_hooks(self) -> None:
        try:
            async with asyncio.timeout(SHUTDOWN_HOOKS_S):
                for function in self._registered.shutdown:
                    await call(function)
        except TimeoutError:
            logger.error("the on_shutdown functions did not end within %g s: cut off", SHUTDOWN_HOOKS_S)

    def _connections_of(self, user: str) -> int:
        return len(self.hub.users.members(user)) + len(self.hub.raw_users.members(user))

    def _admission(self, settings: Settings, registered: Registrations) -> Admission:
        secret = settings.secret.get_secret_value() if settings.secret is not None else None
        session_secret = settings.session_secret.get_secret_value() if settings.session_secret is not None else None
        try:
            keys = RemoteKeys(settings.jwks) if settings.jwks is not None else None
        except ValueError as error:
            raise SettingsError(f"ROOMCAST_JWKS={settings.jwks}: {error}") from None
        authenticator = Authenticator(
            dev=settings.dev,
            secret=secret,
            keys=keys,
            audience=settings.audience,
            issuer=settings.issuer,
            leeway_s=settings.leeway_s,
            sessions=session_secret is not None,
            authenticate=registered.authenticator,
            load_user=registered.user_loader,
            call=call,
        )
        if not authenticator.configured:
            raise SettingsError(NOBODY_COULD_CONNECT)
        listed = [word.strip() for word in os.environ.get(ORIGINS_VARIABLE, "").split(",") if word.strip()]
        return Admission(
            authenticator,
            self.hub.revocations,
            origins=[*settings.origins, *listed, *registered.allowed_origins],
            dev=settings.dev,
            failed_auth_per_min=settings.failed_auth_per_min,
            session_secret=session_secret,
            session_cookie=settings.session_cookie,
        )

    async def _renew(self, token: str, by: str) -> Identity:
        try:
            return await self._site.admission.renew(token, by)
        except Denied as denied:
            raise Refusal("rate_limited", denied.text) from denied
        except Refused as error:
            raise Refusal("unauthorized", str(error)) from error


def create_app(
    settings: Settings,
    broker: Broker | None = None,
    authenticate: Authenticate | None = None,
    *,
    registered: Registrations | None = None,
) -> Node:
    """A node for these settings. Raises SettingsError, and ValueError for a broker URL that makes no sense."""
    registered = registered or Registrations()
    if authenticate is not None:
        registered.authenticate(authenticate)
    if broker is None:
        name = node_id(settings.node or socket.gethostname())
        broker = broker_from_url(settings.broker, node_id=name, options=settings.broker_options())
    return Node(settings, broker, registered)


def node_id(name: str) -> str:
    """A name for people, and a part that is new at every start, so that nothing is inherited from a former life."""
    return f"{name}.{secrets.token_hex(4)}"


def _notes(error: Exception) -> str:
    return "; ".join(getattr(error, "__notes__", ()))


def cors_origins(app: Any) -> Sequence[str]:
    """Origins that another application allows already: of its CORSMiddleware, or ``config["CORS_ORIGINS"]``. A ``*``
    there says who may read what needs no credentials, which is nothing here: it is passed over."""
    listed: list[str] = []
    config = getattr(app, "config", None)
    if isinstance(config, dict):
        listed += config.get("CORS_ORIGINS", ())
    for middleware in getattr(app, "user_middleware", ()):
        if middleware.cls is CORSMiddleware:
            listed += middleware.kwargs.get("allow_origins", ())
    return [origin for origin in listed if origin != "*"]
