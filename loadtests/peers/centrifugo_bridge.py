"""Publishes through the HTTP API of a second Centrifugo, all that waits in a batch: ``centrifugo_bridge PORT``."""

from __future__ import annotations

import asyncio
import json
import sys
from http.client import HTTPConnection

from loadtests.peers.offered import ROOM, offered

BATCH = 256


def publish(connection: HTTPConnection, texts: list[str]) -> None:
    commands = [{"publish": {"channel": ROOM, "data": json.loads(text)}} for text in texts]
    body = json.dumps({"commands": commands}, separators=(",", ":"))
    connection.request("POST", "/api/batch", body, {"Content-Type": "application/json", "X-API-Key": "loadtests"})
    answer = connection.getresponse()
    if answer.status != 200 or any("error" in reply for reply in json.load(answer)["replies"]):
        raise SystemExit(f"Centrifugo refused what was published: {answer.status}")


async def main(port: str) -> None:
    connection = HTTPConnection("127.0.0.1", int(port))
    waiting: asyncio.Queue[str] = asyncio.Queue()

    async def send() -> None:
        while True:
            texts = [await waiting.get()]
            while len(texts) < BATCH and not waiting.empty():
                texts.append(waiting.get_nowait())
            await asyncio.to_thread(publish, connection, texts)

    async def hear() -> None:
        async for text in offered():
            waiting.put_nowait(text)

    await asyncio.gather(send(), hear())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
