"""Operations that look: who is here, what was said, which nodes there are."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from pydantic import Field

from broker.base import Entry
from server.api.operation import Call, Operation
from server.api.problems import Problem
from server.api.values import USER_SCHEMA, Asked, Offset, Reply, Room, UserInQuery
from server.census import MAX_ROOMS
from server.payload import decode_message
from server.protocol import MAX_HISTORY
from server.rosters import page_of

MAX_USERS: Final = 5000
PAGE_ENTRIES: Final = 100
REPLY_BYTES: Final = 1024 * 1024
"""Of the messages in one reply; at least one is always in it."""

UserId = Annotated[int | str, Field(json_schema_extra=USER_SCHEMA)]


class PresenceQuery(Asked):
    room: Room | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_USERS)] = 1000
    after: UserInQuery | None = None


class UserQuery(Asked):
    user_id: UserInQuery


class HistoryQuery(Asked):
    room: Room
    limit: Annotated[int, Field(ge=1, le=MAX_HISTORY)] = 50
    before: Offset | None = None
    since: Offset | None = None


class RoomsQuery(Asked):
    after: Room | None = None
    pattern: Annotated[str, Field(max_length=128, description="`*` stands for any characters.")] = "*"
    limit: Annotated[int, Field(ge=1, le=MAX_ROOMS)] = 100


class NodesQuery(Asked):
    pass


class Present(Reply):
    """Who is here, each once however many connections; ``next`` goes into ``after`` for the next page."""

    room: str | None
    count: int
    users: list[int | str]
    settling_s: float
    next: int | str | None


class Online(Reply):
    user_id: int | str
    online: bool


class Message(Reply):
    offset: int
    tag: str
    user_id: int | str | None
    ts: float
    data: Any


class Messages(Reply):
    """Oldest first. ``more``: there may be further ones, after the last if ``since`` was asked, else before the first.
    ``epoch`` is null, and offsets are 0, while the room has no log."""

    room: str
    epoch: str | None
    top: int
    messages: list[Message]
    more: bool


class RoomCount(Reply):
    room: str
    connections: int


class Rooms(Reply):
    """By name; ``next`` goes into ``after`` for the next page. ``missing`` are nodes that live and did not answer in
    time: what they hold is not counted."""

    rooms: list[RoomCount]
    next: str | None
    missing: list[str]


class NodeDescription(Reply):
    """``moved``: connections sent to other nodes within the last seconds. ``leaving``: it drains. ``updated``: when it
    said all this, by its own clock."""

    node: str
    version: str
    started: float
    updated: float = 0.0
    connections: int
    moved: int = 0
    rooms: int
    leaving: bool = False


class Nodes(Reply):
    nodes: list[NodeDescription]


async def presence(call: Call, asked: PresenceQuery) -> dict[str, Any]:
    roster = await call.hub.broker.presence.roster(asked.room)
    page, last = page_of(sorted(roster.users), asked.after, asked.limit)
    return {
        "room": asked.room,
        "count": len(roster.users),
        "users": [orjson.Fragment(user) for user in page],
        "settling_s": roster.settling_s,
        "next": None if last is None else orjson.Fragment(last),
    }


async def online(call: Call, asked: UserQuery) -> dict[str, Any]:
    found = await call.hub.broker.presence.online(asked.user_id)
    return {"user_id": orjson.Fragment(asked.user_id), "online": found}


async def history(call: Call, asked: HistoryQuery) -> dict[str, Any]:
    # Looking must not open a log.
    (top,) = await call.hub.broker.tops([asked.room])
    if top is None:
        return {"room": asked.room, "epoch": None, "top": 0, "messages": [], "more": False}
    before = top.offset + 1 if asked.before is None else min(asked.before, top.offset + 1)
    if asked.since is not None:
        entries, more = await _after(call, asked.room, asked.since, before, asked.limit)
    else:
        entries, more = await _before(call, asked.room, before, asked.limit)
    return {
        "room": asked.room,
        "epoch": top.epoch.decode(),
        "top": top.offset,
        "messages": [_message(entry) for entry in entries],
        "more": more,
    }


async def _after(call: Call, room: str, since: int, before: int, limit: int) -> tuple[list[Entry], bool]:
    entries: list[Entry] = []
    size = 0
    while len(entries) < limit and since < before - 1:
        page = await call.hub.broker.read(room, since, min(PAGE_ENTRIES, limit - len(entries)))
        for entry in page.entries:
            if entry.offset >= before:
                return entries, False
            size += len(entry.payload)
            if entries and size > REPLY_BYTES:
                return entries, True
            entries.append(entry)
            since = entry.offset
        if not page.entries:
            return entries, False
    return entries, since < before - 1


async def _before(call: Call, room: str, before: int, limit: int) -> tuple[list[Entry], bool]:
    newest_first: list[Entry] = []
    size = 0
    while before > 1 and len(newest_first) < limit:
        wanted = min(PAGE_ENTRIES, limit - len(newest_first), before - 1)
        page = await call.hub.broker.read(room, before - 1 - wanted, wanted)
        found = [entry for entry in page.entries if entry.offset < before]
        for entry in reversed(found):
            size += len(entry.payload)
            if newest_first and size > REPLY_BYTES:
                return newest_first[::-1], True
            newest_first.append(entry)
        before -= wanted
        if len(found) < wanted:  # older ones are not kept
            return newest_first[::-1], False
    return newest_first[::-1], before > 1


def _message(entry: Entry) -> dict[str, Any]:
    try:
        _, tail = decode_message(entry.payload)
        message = orjson.loads(b"{" + tail)
        return {"offset": entry.offset, "tag": entry.tag.decode(), **message}
    except ValueError:
        raise Problem(
            "internal",
            f"the message at offset {entry.offset} cannot be read: does another program write to the broker?",
        ) from None


async def rooms(call: Call, asked: RoomsQuery) -> dict[str, Any]:
    page = await call.hub.cluster.census.rooms(asked.after or "", asked.pattern, asked.limit)
    return {
        "rooms": [{"room": name, "connections": connections} for name, connections in page.rooms],
        "next": page.rooms[-1][0] if page.more else None,
        "missing": page.missing,
    }


async def nodes(call: Call, asked: NodesQuery) -> dict[str, Any]:
    found = await call.hub.broker.nodes()
    return {"nodes": sorted(found, key=lambda node: str(node["node"]))}


OPERATIONS: Final = (
    Operation(
        "GET",
        "/presence",
        "read",
        "Who is in a room, or anywhere",
        "In pages, sorted by their JSON text. `settling_s` above 0: all data was lost a moment ago, and somebody may "
        "be missing whose node has not reported again yet.",
        PresenceQuery,
        Present,
        presence,
    ),
    Operation(
        "GET",
        "/presence/user",
        "read",
        "Whether a user is online",
        "True from the first connection on any node until a little after the last one.",
        UserQuery,
        Online,
        online,
    ),
    Operation(
        "GET",
        "/history",
        "read",
        "Messages of a room",
        "The newest, those before an offset (`before`) or those after one (`since`), or both, as far as they are kept.",
        HistoryQuery,
        Messages,
        history,
    ),
    Operation(
        "GET",
        "/rooms",
        "read",
        "The rooms that have members",
        "On all nodes, in pages by name, with the number of connections. The nodes are asked at this moment: one that "
        "hangs delays the answer by 2 s.",
        RoomsQuery,
        Rooms,
        rooms,
    ),
    Operation(
        "GET",
        "/nodes",
        "read",
        "The nodes that live",
        "As each described itself within the last 15 s.",
        NodesQuery,
        Nodes,
        nodes,
    ),
)
