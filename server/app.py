"""The composition root: settings in, an ASGI application out."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator

from starlette.applications import Starlette

from broker import BrokerOptions, broker_from_url
from broker.base import Broker
from server.auth import Authenticate, Authenticator
from server.endpoints import ProtocolEndpoint, Scope, http_routes
from server.heartbeat import Heartbeat
from server.hub import LocalHub
from server.metrics import Metrics
from server.plainlane import Receive, Send
from server.settings import Settings, SettingsError

NOBODY_COULD_CONNECT = (
    "nobody could connect: set ROOMCAST_SECRET (clients bring a JWT signed with it), "
    "or ROOMCAST_DEV=1 on your own machine (anybody is whoever ?user= says)"
)


class Node:
    """One node as an ASGI application.

    WebSockets of the protocol endpoints go straight to the hub: no middleware stands between, so the fast lane may
    hand them off. Everything else is a Starlette application.
    """

    def __init__(self, settings: Settings, broker: Broker, authenticate: Authenticate | None = None) -> None:
        """Raises SettingsError if nobody could ever connect."""
        secret = settings.secret.get_secret_value() if settings.secret is not None else None
        authenticator = Authenticator(dev=settings.dev, secret=secret, authenticate=authenticate)
        if not authenticator.configured:
            raise SettingsError(NOBODY_COULD_CONNECT)
        self.settings = settings
        self.hub = LocalHub(settings, broker, Metrics())
        self.wheel = Heartbeat(settings.ping_s)
        self._endpoint = ProtocolEndpoint(self.hub, authenticator)
        self._protocol_paths = {"/ws"}
        self._starlette = Starlette(routes=http_routes(self.hub), lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["path"] in self._protocol_paths:
            await self._endpoint(scope, receive, send)
        else:
            await self._starlette(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.hub.tasks.spawn(self.wheel.run(), "heartbeat", forever=True)
        await self.hub.start()
        try:
            yield
        finally:
            await self.hub.close()


def create_app(settings: Settings, broker: Broker | None = None, authenticate: Authenticate | None = None) -> Node:
    """A node for these settings. Raises SettingsError, and ValueError for a broker URL that makes no sense."""
    if broker is None:
        options = BrokerOptions(
            prefix=settings.prefix,
            password_file=settings.broker_password_file,
            heartbeat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
            grace_s=settings.grace_s,
        )
        broker = broker_from_url(
            settings.broker, node_id=node_id(settings.node or socket.gethostname()), options=options
        )
    return Node(settings, broker, authenticate)


def node_id(name: str) -> str:
    """A name for people, and a part that is new at every start, so that nothing is inherited from a former life."""
    return f"{name}.{secrets.token_hex(4)}"
