"""Publishes through a write-only Redis manager, as python-socketio documents it for other processes."""

from __future__ import annotations

import asyncio
import json

import socketio

from loadtests.peers.offered import REDIS_URL, ROOM, offered


async def main() -> None:
    manager = socketio.AsyncRedisManager(REDIS_URL, write_only=True)
    async for text in offered():
        await manager.emit("message", json.loads(text), room=ROOM)


if __name__ == "__main__":
    asyncio.run(main())
