"""Runs a node under uvicorn: on the fast lane, with limits set, leaving as server/drain.py says when told to."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import socket
import threading
from collections.abc import Collection
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from server.app import ENDS_S, Node
from server.drain import drain
from server.fastlane import FastConnection
from server.uvicorn_http import FastLane, limit_connections

logger = logging.getLogger("server.serve")

STDERR = 2
"""The descriptor: a signal handler must not fail because ``sys.stderr`` is something else."""
LAST_WORDS_S = 2.0
"""How long the last clients to be told may take to answer the close. Then they are cut off."""
LOOK_S = 0.05
HANDLERS_S = 5.0
"""How long handlers may take to end by themselves after the last client was told. Then they are cancelled."""
AT_ONCE_S = 1.2
"""After a second signal the process ends within this time, whatever the application does."""
LEFTOVERS_S = 0.5
"""What runs on after the node has ended (a thread of a sync handler, a task that will not be cancelled) may take."""
UVICORN_S = 2
"""What uvicorn itself waits for requests that are still being answered."""
GC_THRESHOLDS = (5000, 20, 50)
"""Python's own are (700, 10, 10): objects more than before, collections of the youngest, of the middle generation."""
MARGIN_S = 2.0
"""For a busy machine, on top of all these times."""


class Server(uvicorn.Server):
    """uvicorn closes all WebSockets at once before the lifespan ends, so the drain comes before uvicorn learns of the
    signal. A second signal leaves at once; what is lost then is healed by the presence lease and by resume.

    It owns the process: one that does not come to its end is ended, with the stacks of all threads on stderr."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: list[socket.socket] = []
        """Given from outside: bound, perhaps beside those of other processes."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets or []
        await super().startup(sockets)
        limit_connections(sock for server in self.servers for sock in server.sockets)
        _settle()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not handed to uvicorn, which would raise the signal once more at the end: a drained node exits with 0.
        if self._loop is None or self._node.hub.draining:
            self.should_exit = self.force_exit = True
            faulthandler.dump_traceback_later(AT_ONCE_S, exit=True, file=STDERR)
        else:
            self._node.hub.draining = True
            faulthandler.dump_traceback_later(self.leaves_within_s, exit=True, file=STDERR)
            self._loop.call_soon_threadsafe(self._begin_drain)

    @property
    def leaves_within_s(self) -> float:
        """From the signal to the end of the process, at the longest. A container's stop grace must be longer."""
        return self._node.settings.drain_s + HANDLERS_S + ENDS_S + UVICORN_S + MARGIN_S

    def _begin_drain(self) -> None:
        self._drain = asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        try:
            self._take_nobody()
            self._node.hub.leaving()
            await drain(self._node.hub.everyone, self._node.settings.drain_s)
            await self._end_connections()
            await self._node.end_handlers(HANDLERS_S - LAST_WORDS_S)
        finally:
            self.should_exit = True

    def _take_nobody(self) -> None:
        """No new connections; an HTTP connection that is kept alive ends with its next answer."""
        for server in getattr(self, "servers", ()):  # a signal may come before there are any
            server.close()
        for sock in self._sockets:
            sock.close()
        last = (b"connection", b"close")
        self.config.encoded_headers.append(last)
        self.server_state.default_headers = [*self.server_state.default_headers, last]

    async def _end_connections(self) -> None:
        for _ in range(round(LAST_WORDS_S / LOOK_S)):
            if not self._node.hub.counts.connections:
                break
            await asyncio.sleep(LOOK_S)
        open_still: Collection[object] = self.server_state.connections
        left = [each for each in open_still if isinstance(each, FastConnection)]
        if left:
            logger.info("cutting off %d connections that did not answer the close", len(left))
        for connection in left:
            connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # All is said and done: what the application left running must not keep the process.
        cut = threading.Timer(LEFTOVERS_S, _cut)
        cut.daemon = True
        cut.start()


def _settle() -> None:
    """What is there at the start stays: the collector of cycles need not look at it again. It comes more rarely, too: a
    full collection walks over all connections while everybody waits."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _cut() -> None:
    logger.warning("the node has ended; threads or tasks of the application that run on are cut off")
    os._exit(0)


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
        timeout_graceful_shutdown=UVICORN_S,
        backlog=2048,
        server_header=False,
    )


def operators_config(app: ASGIApp) -> uvicorn.Config:
    """For a port that only operators use: plain HTTP."""
    return uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
