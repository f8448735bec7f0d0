"""A chat with history in one file, a view and a page.

Run it with ``roomcast serve --dev --app examples.chat:hub`` and open http://localhost:8000/?name=ann
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from roomcast import Hub, Refusal, WebSocket


async def page(request: Request) -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))


hub = Hub(routes=[Route("/", page)])


@hub.websocket_route("/chat/{room}", value_type="json")
async def chat(ws: WebSocket, room: str, user: str = "guest") -> None:
    """The last messages first, then everybody's, on whichever node they are."""
    name = f"chat:{room}"
    for message in await hub.history(name, limit=20):
        await ws.send(message["data"])
    async for message in ws:
        if isinstance(message, dict) and str(message.get("text") or "").strip():
            said = {"type": "message", "user": user, "text": message["text"]}
            await hub.publish(name, said)
            await hub.broadcast_json(ws.path, said)


@hub.on_message("chat:*")
async def no_shouting(conn: WebSocket, room: str, data: dict[str, str]) -> dict[str, str]:
    """The same rooms over /ws, for clients that speak the protocol: with resume, presence and receipts."""
    text = data.get("text", "") if isinstance(data, dict) else ""
    if not text.strip():
        raise Refusal("forbidden", "say something")
    return {"type": "message", "user": str(conn.user_id), "text": text.lower() if text.isupper() else text}
