"""The Python client as a program of its own: commands come as lines of JSON, what the application sees goes out so.

The words are those of driver.mjs: a status is what the JavaScript client calls it, an error code likewise.
Arguments: URL, where tokens are had, name, seconds to wait for a pong (0: as the client has it).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from roomcast_client import (
    Connected,
    Degraded,
    Direct,
    Disconnected,
    Draining,
    Joined,
    Lost,
    Message,
    OutcomeUnknown,
    PutIn,
    Refused,
    Removed,
    Reset,
    Restored,
    Room,
    Roomcast,
    RoomcastError,
    Unavailable,
    client,
    policy,
)

policy.BASE_S /= 5  # type: ignore[misc]
policy.CAP_S /= 5  # type: ignore[misc]
STATUS = {Connected: "online", Restored: "online", Degraded: "degraded", Draining: "draining", Lost: "waiting"}


def say(at: str, **detail: Any) -> None:
    sys.stdout.write(json.dumps({"at": at, **detail}) + "\n")
    sys.stdout.flush()


def code_of(error: RoomcastError) -> str:
    if isinstance(error, Refused):
        return error.code
    names = {Removed: "left", OutcomeUnknown: "timeout", Unavailable: "unavailable"}
    return names.get(type(error), "closed")


class Driver:
    def __init__(self, url: str, tokens: str, name: str, heartbeat_s: str) -> None:
        self.rc = Roomcast(
            url,
            token=lambda: asyncio.to_thread(self.token),
            ping_s=float(heartbeat_s) or client.PING_S,
            open_timeout_s=20,
        )
        self.tokens = urlsplit(tokens)
        self.name = name
        self.rooms: dict[str, Room] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.chatter: asyncio.Task[None] | None = None
        self.count = 0

    def token(self) -> str:
        connection = http.client.HTTPConnection(self.tokens.netloc, timeout=10)
        try:
            connection.request("GET", self.tokens.path)
            answer = connection.getresponse()
            say("token", status=answer.status)
            if answer.status != 200:
                raise OSError(f"no token: {answer.status}")
            return answer.read().decode()
        finally:
            connection.close()

    async def run(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with self.rc:
            self.spawn(self.follow_client())
            while line := await reader.readline():
                command = json.loads(line)
                getattr(self, command.pop("do"))(**command)
        for task in self.tasks:
            task.cancel()

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # What the application sees.

    async def follow_client(self) -> None:
        try:
            async for event in self.rc.events():
                if type(event) in STATUS:
                    say("status", status=STATUS[type(event)], code=getattr(event, "code", None))
                elif isinstance(event, PutIn):
                    say("put_in", room=event.room)
                    self.join(event.room)
                elif isinstance(event, Direct):
                    say("direct", data=event.data)
        except Disconnected as error:
            say("status", status="closed", code=error.code)

    async def follow_room(self, name: str) -> None:
        try:
            room = self.rooms[name] = await self.rc.join(name)
            async for event in room.events():
                if isinstance(event, Message):
                    say("message", room=name, offset=event.offset, tag=event.tag, data=event.data)
                elif isinstance(event, Reset):
                    say("reset", room=name, offset=event.position.offset)
                elif isinstance(event, Joined):
                    say("joined", room=name, recovered=event.recovered, missed=event.replayed)
        except RoomcastError as error:
            say("ended", room=name, code=code_of(error))

    async def deliver(self, room: str, data: Any) -> None:
        try:
            ack = await self.rooms[room].send(data, timeout_s=60)
        except RoomcastError as error:
            say("failed", room=room, data=data, code=code_of(error))
        else:
            say("ack", room=room, data=data, offset=ack.offset)

    async def talk(self, room: str, every_ms: int) -> None:
        while True:
            await asyncio.sleep(every_ms / 1000)
            self.count += 1
            self.send(room, f"{self.name} {self.count}")

    # Commands.

    def join(self, room: str) -> None:
        self.spawn(self.follow_room(room))

    def send(self, room: str, data: Any) -> None:
        self.spawn(self.deliver(room, data))

    def start_chatter(self, room: str, every_ms: int) -> None:
        self.chatter = self.spawn(self.talk(room, every_ms))

    def hush(self) -> None:
        if self.chatter is not None:
            self.chatter.cancel()
        say("hushed", sent=self.count)


if __name__ == "__main__":
    asyncio.run(Driver(*sys.argv[1:5]).run())
