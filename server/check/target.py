"""What is checked: the address as its clients use it. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"ws": 80, "wss": 443}
_WEBSOCKETS = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True)
class Target:
    secure: bool
    host: str
    port: int
    path: str
    """Of the WebSocket."""

    @property
    def authority(self) -> str:
        """As it stands in a ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["wss" if self.secure else "ws"] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Of the WebSocket."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.path}"

    @property
    def origin(self) -> str:
        """Of a page from the same host."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    def beside(self, path: str) -> str:
        """``/metrics`` beside ``/chat/ws`` is ``/chat/metrics``."""
        return self.path.rpartition("/")[0] + path

    @property
    def is_local(self) -> bool:
        """This machine: nothing on the way to it can be overheard."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_target(url: str) -> Target:
    """``https://chat.example.com``, or the whole ``wss://chat.example.com/ws``. ValueError says what is wrong."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _WEBSOCKETS:
        raise ValueError(
            f"{url!r} is no address of a deployment: write https://chat.example.com or ws://localhost:8000/ws"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{url!r} must have a host, and neither credentials nor a query: tokens go into --token")
    kind = _WEBSOCKETS[scheme]
    path = parts.path if parts.path not in ("", "/") else "/ws"
    return Target(kind == "wss", parts.hostname, port or _PORTS[kind], path)
