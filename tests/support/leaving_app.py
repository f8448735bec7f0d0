"""An application for tests of a drain: handlers and hooks that take their time, and tell in a file how they ended.

The file is named by LEAVING_APP_TOLD. A client chooses by its path what goes wrong. The shutdown of ``slow_hub``, which
is another application, never ends.
"""

from __future__ import annotations

import asyncio
import os
import time

from roomcast import Hub, WebSocket

hub = Hub(handler_grace_s=0.5)
slow_hub = Hub(handler_grace_s=0.5)
background: set[asyncio.Task[None]] = set()


for each in (hub, slow_hub):
    each.authenticate(lambda credentials: "somebody")


def tell(what: str) -> None:
    with open(os.environ["LEAVING_APP_TOLD"], "a") as file:
        file.write(what + "\n")


@hub.websocket_route("/polite")
async def polite(ws: WebSocket) -> None:
    """Ends with its client, after a last thing that takes a moment."""
    async with ws:
        await ws.send_text("ready")
        try:
            await ws.receive()
        finally:
            await asyncio.sleep(0.2)
            tell("polite: finished")


@hub.websocket_route("/stubborn")
async def stubborn(ws: WebSocket) -> None:
    """Does not look whether its client is there."""
    async with ws:
        await ws.send_text("ready")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            tell("stubborn: cancelled")
            raise


@hub.websocket_route("/deaf")
async def deaf(ws: WebSocket) -> None:
    """Will not be cancelled."""
    async with ws:
        await ws.send_text("ready")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                tell("deaf: was told")


@hub.on("/thread")
def thread(conn: WebSocket, message: str) -> None:
    """Blocks its thread, which nobody can end."""
    tell("thread: blocked")
    time.sleep(3600)


@hub.on("/blocked")
async def blocked(conn: WebSocket, message: str) -> None:
    """Blocks the event loop."""
    tell("blocked: for ever")
    time.sleep(3600)  # noqa: ASYNC251  # what it is about


@hub.on_leave
async def left(conn: WebSocket, room: str) -> None:
    await asyncio.sleep(1)
    tell(f"left: {conn.user_id}")


async def work() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        tell("background: cancelled")


@hub.on_startup
async def start_work() -> None:
    background.add(asyncio.create_task(work()))


@hub.on_shutdown
def shut_down() -> None:
    tell("shutdown")


@slow_hub.on_shutdown
async def never() -> None:
    tell("shutdown: never ends")
    await asyncio.sleep(3600)
