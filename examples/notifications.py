"""Notifications beside a web application: FastAPI has the pages, the hub inside it has the sockets.

Run it with ``ROOMCAST_DEV=1 uvicorn examples.notifications:app``.
"""

from fastapi import FastAPI

from roomcast import Hub, JsonWebSocketHandler, WebSocket

hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
app.mount("/live", hub.asgi)


class Notifications(JsonWebSocketHandler):
    """One class per endpoint; what belongs to one connection lives in ``websocket.state``."""

    auth = True
    receive_timeout = 3600

    async def on_connect(self, websocket: WebSocket) -> None:
        websocket.state.read = 0
        await websocket.send_json({"event": "welcome", "user": websocket.user_id})

    async def on_receive_json(self, websocket: WebSocket, data: dict[str, object]) -> None:
        if data.get("event") == "read":
            websocket.state.read += 1
            await websocket.send_json({"event": "counted", "read": websocket.state.read})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        await hub.publish("audit:notifications", {"user": websocket.user_id, "code": close_code})


hub.add_ws_route(Notifications(), "/notifications")


@app.post("/orders/{number}")
async def order_shipped(number: int) -> dict[str, int]:
    """Whatever happens in the web application reaches everybody who has the page open."""
    await hub.broadcast_json("/notifications", {"event": "shipped", "order": number})
    return {"order": number}
