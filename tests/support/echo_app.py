"""An application for tests whose raw endpoint says back what it hears, text as text and bytes as bytes."""

from __future__ import annotations

from roomcast import Hub, WebSocket

hub = Hub()


@hub.websocket_route("/echo")
async def echo(ws: WebSocket) -> None:
    while (event := await ws.receive_event())["type"] == "websocket.receive":
        await ws.send_event({**event, "type": "websocket.send"})
