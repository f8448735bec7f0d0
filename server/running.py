"""A node in this process, alone or as one of several workers: where it listens."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from starlette.applications import Starlette

from server.app import Node
from server.endpoints import operators_routes
from server.serve import Server, operators_config, uvicorn_config
from server.workplace import Place, shared_sockets


def run(node: Node, place: Place | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. ``place``: with others on one port."""
    server = _Server(node, place)
    server.run(shared_sockets(node.settings.host, place.port) if place is not None else None)


class _Server(Server):
    """Serves ``/metrics`` on a port of its own, too, if the settings name one: to the end, also while it drains."""

    def __init__(self, node: Node, place: Place | None) -> None:
        super().__init__(uvicorn_config(node), node)
        self._place = place
        self._apart: asyncio.Server | None = None
        self._telling: asyncio.Task[None] | None = None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self._node.settings.metrics_port:
            self._apart = await self._listen_apart()
        if self._place is not None:
            self._telling = asyncio.ensure_future(self._place.tell())

    async def _listen_apart(self) -> asyncio.Server:
        config = operators_config(Starlette(routes=operators_routes(self._node.hub)))
        config.load()
        kind: Any = config.http_protocol_class
        protocol = partial(kind, config=config, server_state=self.server_state, app_state=self.lifespan.state)
        settings = self._node.settings
        return await asyncio.get_running_loop().create_server(protocol, settings.host, settings.metrics_port)

    async def shutdown(self, sockets: Any = None) -> None:
        if self._apart is not None:
            self._apart.close()
        await super().shutdown(sockets)
