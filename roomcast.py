"""Roomcast for applications: everything a user needs, and nothing else.

from roomcast import Hub

hub = Hub()

@hub.on("/chat/[room]")
async def chat(conn, message):
    await hub.broadcast(conn.path, message, exclude=conn)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def _look_for_namesakes() -> None:
    """Roomcast's own packages are called ``server`` and ``broker``: an application's module of that name, earlier on
    the path, would be imported in their place and fail somewhere without a hint."""
    for package in ("broker", "server"):
        found = importlib.util.find_spec(package)
        where = list(found.submodule_search_locations or [found.origin or ""]) if found is not None else []
        ours = Path(__file__).resolve().parent / package
        if not any(Path(folder).resolve() == ours for folder in where):
            raise ImportError(
                f"{where[0] if where else 'nothing'} is found as {package!r}, which is the name of a package of "
                f"roomcast's ({ours}): rename your module, or keep its folder off sys.path"
            )


_look_for_namesakes()

from starlette.websockets import WebSocketDisconnect  # noqa: E402

from broker.base import BrokerError, OutcomeUnknown, Position, Unavailable  # noqa: E402
from server.app import Node, create_app  # noqa: E402
from server.application import Hub  # noqa: E402
from server.auth import Credentials  # noqa: E402
from server.configuration import load_settings  # noqa: E402
from server.handlers.classes import JsonWebSocketHandler, WebSocketEndpoint, WebSocketHandler  # noqa: E402
from server.handlers.connection import WebSocket  # noqa: E402
from server.handlers.messages import BadMessage  # noqa: E402
from server.handlers.routing import WebSocketRouter  # noqa: E402
from server.handlers.yaml_config import YamlError  # noqa: E402
from server.identity import ANONYMOUS, Grants, Identity, User  # noqa: E402
from server.refusal import Refusal  # noqa: E402
from server.running import run  # noqa: E402
from server.settings import Settings, SettingsError  # noqa: E402

__all__ = [
    "ANONYMOUS",
    "BadMessage",
    "BrokerError",
    "Credentials",
    "Grants",
    "Hub",
    "Identity",
    "JsonWebSocketHandler",
    "Node",
    "OutcomeUnknown",
    "Position",
    "Refusal",
    "Settings",
    "SettingsError",
    "Unavailable",
    "User",
    "WebSocket",
    "WebSocketDisconnect",
    "WebSocketEndpoint",
    "WebSocketHandler",
    "WebSocketRouter",
    "YamlError",
    "create_app",
    "load_settings",
    "run",
]
