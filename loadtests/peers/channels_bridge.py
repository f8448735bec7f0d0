"""Publishes with ``group_send``, as Django Channels documents it for other processes."""

from __future__ import annotations

import asyncio

from channels.layers import get_channel_layer

import loadtests.peers.channels_app  # noqa: F401 - it configures Django
from loadtests.peers.offered import ROOM, offered


async def main() -> None:
    layer = get_channel_layer()
    async for text in offered():
        await layer.group_send(ROOM, {"type": "chat.message", "message": text})


if __name__ == "__main__":
    asyncio.run(main())
