"""A Centrifugo that is none: speaks its client protocol and its API as documented, and loses messages if told to.

standin_centrifugo.py --config PATH, with CENTRIFUGO_HTTP_SERVER_PORT, CENTRIFUGO_ENGINE_REDIS_ADDRESS and, which the
real one knows nothing of, STANDIN_FAULT=ok|lose
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

REDIS_URL = os.environ["CENTRIFUGO_ENGINE_REDIS_ADDRESS"]
LOSES = os.environ.get("STANDIN_FAULT") == "lose"
FAULTY = '"seq":"000000000003"'
CHANNEL = "centrifugo"
engine: redis.asyncio.Redis = redis.asyncio.from_url(REDIS_URL, protocol=2)
members: set[WebSocket] = set()


async def connection(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        command = json.loads(text)
        if not command:
            continue  # a pong
        (method,) = command.keys() - {"id"}
        if method == "subscribe":
            members.add(websocket)
        await websocket.send_text(json.dumps({"id": command["id"], method: {}}, separators=(",", ":")) + "\n{}")
    members.discard(websocket)


async def batch(request: Request) -> JSONResponse:
    assert request.headers["x-api-key"] == "loadtests"
    commands = (await request.json())["commands"]
    for command in commands:
        push = {"push": {"channel": command["publish"]["channel"], "pub": {"data": command["publish"]["data"]}}}
        await engine.publish(CHANNEL, json.dumps(push, separators=(",", ":")))
    return JSONResponse({"replies": [{"publish": {}} for _ in commands]})


async def fan_out() -> None:
    async with engine.pubsub() as subscription:
        await subscription.subscribe(CHANNEL)
        async for event in subscription.listen():
            if event["type"] != "message":
                continue
            text = event["data"].decode()
            if LOSES and FAULTY in text:
                continue
            for member in list(members):
                await member.send_text(text + "\n{}")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    task = asyncio.create_task(fan_out())
    yield
    task.cancel()


app = Starlette(
    routes=[WebSocketRoute("/connection/websocket", connection), Route("/api/batch", batch, methods=["POST"])],
    lifespan=lifespan,
)
uvicorn.run(app, port=int(os.environ["CENTRIFUGO_HTTP_SERVER_PORT"]), log_level="warning")
