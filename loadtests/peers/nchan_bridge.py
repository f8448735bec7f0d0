"""Publishes over a WebSocket to Nchan, whose answers are read and dropped: ``nchan_bridge PORT``."""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.client import ClientConnection, connect

from loadtests.peers.offered import offered


async def read_answers(connection: ClientConnection) -> None:
    async for _ in connection:
        pass


async def main(port: str) -> None:
    async with connect(f"ws://127.0.0.1:{port}/pub", compression=None) as connection:
        answers = asyncio.create_task(read_answers(connection))
        async for text in offered():
            await connection.send(text)
        answers.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
