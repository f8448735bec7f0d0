"""Runs a node under uvicorn: on the fast lane, with limits set, leaving when told to."""

from __future__ import annotations

import uvicorn

from server.app import Node
from server.fastlane import FastLane


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
        timeout_graceful_shutdown=5,
        backlog=2048,
        server_header=False,
    )


def run(node: Node) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.Server(uvicorn_config(node)).run()
