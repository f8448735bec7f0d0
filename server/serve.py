"""Runs a node under uvicorn: on the fast lane, with limits set, leaving as server/drain.py says when told to."""

from __future__ import annotations

import asyncio
import logging
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from server.app import Node
from server.drain import drain
from server.fastlane import FastLane

logger = logging.getLogger("server.serve")


class Server(uvicorn.Server):
    """uvicorn closes all WebSockets at once before the lifespan ends, so the drain comes before uvicorn learns of the
    signal. A second signal leaves at once; what is lost then is healed by the presence lease and by resume."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # passed on
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not handed to uvicorn, which would raise the signal once more at the end: a drained node exits with 0.
        if self._loop is None or self._node.hub.draining:
            self.should_exit = self.force_exit = True
        else:
            self._node.hub.draining = True
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self._drain = asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        try:
            for server in getattr(self, "servers", ()):
                server.close()
            await drain(self._node.hub.everyone(), self._node.settings.drain_s)
        finally:
            self.should_exit = True


def uvicorn_config(node: Node, *, fast: bool = True) -> uvicorn.Config:
    """``fast=False`` serves the same node through uvicorn's own protocol classes, on the plain lane."""
    settings = node.settings
    lane = FastLane(node.wheel, settings.max_message_bytes, settings.outbound_bytes)
    return uvicorn.Config(
        node,
        host=settings.host,
        port=settings.port,
        http=lane if fast else "httptools",  # type: ignore[arg-type]  # uvicorn only calls it
        ws="websockets-sansio",
        loop="uvloop",
        log_config=None,
        access_log=False,
        lifespan="on",
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.ping_s,
        ws_per_message_deflate=False,  # 64 KiB a connection, and one shared frame for all would not be possible
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=2,
        backlog=2048,
        server_header=False,
    )


def operators_config(app: ASGIApp) -> uvicorn.Config:
    """For a port that only operators use: plain HTTP."""
    return uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
