"""An application for tests that tells a client which address its node believes it to have."""

from __future__ import annotations

from roomcast import Hub, WebSocket

hub = Hub()


@hub.websocket_route("/address")
async def address(ws: WebSocket) -> None:
    assert ws.client is not None
    await ws.send_text(ws.client.host)
