"""A protected admin room: tokens with a role, an authorizer, middleware, and sending somebody away.

Run it with ``ROOMCAST_SECRET=… roomcast serve --app examples.admin:hub``; ``roomcast token root`` makes the token to
connect with.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from roomcast import Hub, WebSocket, WebSocketRouter

logger = logging.getLogger("admin")


class Account(NamedTuple):
    id: int | str
    is_admin: bool


ACCOUNTS = {"root": Account("root", True), "ann": Account("ann", False)}
hub = Hub()


@hub.load_user
def load_user(user_id: int | str) -> Account | None:
    """``conn.user`` is the application's own object; whoever is not known is refused."""
    return ACCOUNTS.get(str(user_id))


@hub.room_authorizer("admin:*")
def only_admins(conn: WebSocket, room: str) -> bool:
    return bool(conn.user and conn.user.is_admin)


tools = WebSocketRouter(prefix="/admin")


class AdminsOnly:
    """Class middleware: runs before every handler of the router."""

    async def __call__(self, websocket: WebSocket, call_next: Callable[[], Awaitable[None]]) -> None:
        if not (websocket.user and websocket.user.is_admin):
            await websocket.reject()
            return
        logger.info("%s from %s", websocket.user.id, websocket.addr)
        await call_next()


@tools.websocket_route("/kick", value_type="json", auth=True)
async def kick(ws: WebSocket) -> None:
    async for order in ws:
        user: Any = order["user"]
        await hub.revoke(user, for_s=600)
        await hub.publish("admin:log", {"kicked": user, "by": ws.user.id})
        await ws.send({"kicked": user})


tools.add_ws_middleware(AdminsOnly)
hub.mount_ws_router(tools)
