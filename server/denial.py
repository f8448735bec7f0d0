"""A handshake that is answered with an HTTP status instead of the 101: no upgrade, and a proxy may ask elsewhere."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any


class Denied(Exception):
    """``text`` says what to do. ``reason`` is one of a few fixed words, for the metrics."""

    def __init__(self, status: int, text: str, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Beside those of any text."""
        return {"retry-after": str(math.ceil(self.retry_after_s))} if self.retry_after_s else {}


async def deny(scope: Mapping[str, Any], send: Callable[[Any], Awaitable[None]], denied: Denied) -> None:
    """Answer so. To be called after ``websocket.connect`` was received, before an accept. A server that cannot send a
    response in its place answers 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    body = denied.text.encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **denied.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": denied.status, "headers": encoded})
    await send({"type": "websocket.http.response.body", "body": body})
