"""Operations that send: to a room, to a path, to a user, and many of these at once."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from broker.base import BrokerError, Dedup
from server import events
from server.api.operation import Call, Operation
from server.api.problems import Problem, of_broker
from server.api.values import Data, Given, Path, Reply, RetryKey, Room, User, checked
from server.payload import encode_message

MAX_COMMANDS: Final = 100


class Publish(Given):
    room: Room
    data: Data


class Broadcast(Given):
    path: Path
    data: Data


class Send(Given):
    user_id: User
    data: Data


class PublishCommand(Publish):
    op: Literal["publish"]
    key: RetryKey | None = None


class BroadcastCommand(Broadcast):
    op: Literal["broadcast"]


class SendCommand(Send):
    op: Literal["send"]


Command = Annotated[PublishCommand | BroadcastCommand | SendCommand, Field(discriminator="op")]


class Batch(Given):
    commands: Annotated[list[Command], Field(min_length=1, max_length=MAX_COMMANDS)]


class Published(Reply):
    """Where the message stands in the room's log."""

    room: str
    epoch: str
    offset: int
    tag: str


class Sent(Reply):
    """Handed to the broker. At most once: whoever is not connected does not get it."""

    sent: Literal[True]


class Failed(Reply):
    """What became of one command that failed: a problem."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Results(Reply):
    """What became of each command, in their order."""

    results: list[Published | Sent | Failed]


async def publish(call: Call, given: Publish) -> dict[str, Any]:
    return await _append(call, given, call.retry_key)


async def _append(call: Call, given: Publish, key: str | None) -> dict[str, Any]:
    hub = call.hub
    data = checked(given.data, hub.settings.max_message_bytes)
    position = await hub.broker.append(
        given.room,
        encode_message(events.message_tail("null", time.time(), data)),
        history=hub.rooms.history(given.room),
        dedup=Dedup(f"api:{call.caller}", key) if key is not None else None,
    )
    epoch, tag = position.epoch.decode(), position.tag.decode()
    return {"room": given.room, "epoch": epoch, "offset": position.offset, "tag": tag}


async def broadcast(call: Call, given: Broadcast) -> dict[str, Any]:
    checked(given.data, call.hub.settings.max_message_bytes)
    await call.hub.cluster.broadcast_json(given.path, given.data)
    return {"sent": True}


async def send(call: Call, given: Send) -> dict[str, Any]:
    checked(given.data, call.hub.settings.max_message_bytes)
    await call.hub.cluster.send_to_user(given.user_id, given.data)
    return {"sent": True}


async def batch(call: Call, given: Batch) -> dict[str, Any]:
    for number, command in enumerate(given.commands):
        try:
            checked(command.data, call.hub.settings.max_message_bytes)
        except Problem as problem:
            raise Problem(problem.code, f"commands/{number}: {problem.detail}; nothing was sent") from None
    # Tasks begin in the order of their making, and each gives its message to the broker before it first waits.
    return {"results": await asyncio.gather(*(_result(call, command) for command in given.commands))}


async def _result(call: Call, command: PublishCommand | BroadcastCommand | SendCommand) -> dict[str, Any]:
    try:
        if isinstance(command, PublishCommand):
            return await _append(call, command, command.key)
        if isinstance(command, BroadcastCommand):
            return await broadcast(call, command)
        return await send(call, command)
    except BrokerError as error:
        return of_broker(error).fields


OPERATIONS: Final = (
    Operation(
        "POST",
        "/publish",
        "publish",
        "Publish a message to a room",
        "Appended to the room's log and sent to its members on all nodes; its `user_id` is null.",
        Publish,
        Published,
        publish,
        retryable=True,
    ),
    Operation(
        "POST",
        "/broadcast",
        "publish",
        "Send to every connection on a path",
        "On `/ws` a `broadcast` event, on paths of handlers the JSON text. At most once, never logged.",
        Broadcast,
        Sent,
        broadcast,
    ),
    Operation(
        "POST",
        "/send",
        "publish",
        "Send to every connection of a user",
        "A `direct` event. At most once, never logged.",
        Send,
        Sent,
        send,
    ),
    Operation(
        "POST",
        "/batch",
        "publish",
        f"Up to {MAX_COMMANDS} of publish, broadcast and send",
        "In their order. A mistake in one refuses all; what fails later fails alone and is told in `results`. Counts "
        "as so many requests as there are commands.",
        Batch,
        Results,
        batch,
        cost=lambda given: len(given.commands),
    ),
)
