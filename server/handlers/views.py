"""View functions: one coroutine (or plain function) that is the whole conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.websockets import WebSocketDisconnect

from server.handlers.binding import BadParameter, Binder
from server.handlers.connection import NORMAL_CODES, CaughtCodes, WebSocket
from server.handlers.lifecycle import Options, Session
from server.handlers.messages import MessageType
from server.handlers.threads import call

View = Callable[..., Any]


def view_session(view: View, *, auto_accept: bool = True) -> Session:
    """``auto_accept``: accepted before the view, closed after it, and a client that leaves with a normal code ends the
    view without an error. Otherwise the view does all that, best with ``async with``."""
    binder = Binder(view, 1)

    async def session(websocket: WebSocket) -> None:
        try:
            arguments = binder.arguments(websocket.path_params, websocket.query_params)
        except BadParameter as error:
            await websocket.reject(400, f"{error}\n")
            return
        if not auto_accept:
            await call(view, websocket, **arguments)
            return
        await websocket.accept()
        try:
            await call(view, websocket, **arguments)
        except WebSocketDisconnect as error:
            if not websocket.catches(error.code):
                raise

    return session


def view_options(
    *,
    auto_accept: bool = True,
    receive_type: MessageType | None = None,
    send_type: MessageType | None = None,
    value_type: MessageType = "text",
    caught_close_codes: CaughtCodes = NORMAL_CODES,
    auth: bool | None = None,
    origins: Sequence[str] | None = None,
) -> Options:
    """What ``websocket_route`` takes. ``value_type`` stands for both types; either may be given alone."""
    return Options(
        auth=auth,
        origins=origins,
        receive_type=_checked(receive_type or value_type),
        send_type=_checked(send_type or value_type),
        caught_close_codes=caught_close_codes,
        auto_accepted=auto_accept,
    )


def _checked(kind: MessageType) -> MessageType:
    if kind not in ("text", "json", "bytes"):
        raise ValueError(f"{kind!r} is no type of message: text, json or bytes")
    return kind
