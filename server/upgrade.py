"""What an HTTP request at ``/ws`` is told that is no WebSocket handshake: often one that a proxy made of a handshake.
It names what is missing, so that whoever set up the proxy sees it, and ``roomcast check`` can say it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

DETAIL: Final = (
    "This is the WebSocket endpoint, and the request came without an upgrade. Behind a proxy let it pass on the "
    "headers Upgrade and Connection over HTTP/1.1; nginx: proxy_http_version 1.1; proxy_set_header Upgrade "
    "$http_upgrade; proxy_set_header Connection upgrade;"
)


def not_upgraded(http_version: str, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The body of the 426."""
    given: dict[bytes, bytes] = {name.lower(): value.lower() for name, value in headers}
    missing = [
        name
        for name, word in (("Upgrade", b"websocket"), ("Connection", b"upgrade"))
        if word not in given.get(name.lower().encode(), b"")
    ]
    return {"code": "upgrade_required", "http_version": http_version, "missing": missing, "detail": DETAIL}
