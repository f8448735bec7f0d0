"""Server frames as events. Pure. KeyError, TypeError or ValueError for a frame that is not what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roomcast_client.events import (
    Broadcast,
    ClientEvent,
    Degraded,
    Direct,
    Mark,
    Presence,
    Receipt,
    Restored,
    RoomEvent,
    Roster,
    Typing,
)

Frame = Mapping[str, Any]


def parse_client_event(frame: Frame) -> ClientEvent | None:
    """What concerns no room; None for what this version does not know."""
    kind = frame["op"] if frame["op"] != "broadcast" else frame["type"]
    if kind == "degraded":
        return Degraded(float(frame["since"]))
    if kind == "restored":
        return Restored()
    if kind == "presence":
        return parse_presence(None, frame)
    if kind == "presence_list":
        return parse_roster(frame)
    if kind == "direct":
        return Direct(frame["data"])
    if kind == "broadcast":
        return Broadcast(str(frame["path"]), frame["user_id"], frame["data"])
    return None


def parse_room_event(room: str, frame: Frame) -> RoomEvent | None:
    """What happened in a room, other than messages; None for what this version does not know."""
    kind = frame["type"]
    if kind == "presence":
        return parse_presence(room, frame)
    if kind == "presence_list":
        return parse_roster(frame)
    if kind == "typing":
        return Typing(room, frame["user_id"], frame["typing"] is True)
    if kind == "receipt":
        return Receipt(room, frame["user_id"], frame["message_id"], frame["status"])
    return None


def parse_presence(room: str | None, frame: Frame) -> Presence:
    return Presence(room, frame["user_id"], frame["status"] == "online")


def parse_roster(frame: Frame) -> Roster:
    users = tuple(frame["users"])
    return Roster(frame.get("room"), users, int(frame.get("count", len(users))), (), frame.get("next"))


def parse_members(room: str, reply: Frame) -> list[RoomEvent]:
    """The ``members`` of a join reply, if it has them."""
    members = reply.get("members")
    if members is None:
        return []
    users = tuple(members["users"])
    return [Roster(room, users, int(members.get("count", len(users))), tuple(members.get("typing", ())))]


def parse_marks(reply: Frame) -> tuple[Mark, ...]:
    """The ``receipts`` of a join reply."""
    marks = reply.get("receipts", ())
    return tuple(Mark(mark["user_id"], int(mark.get("delivered", 0)), int(mark.get("read", 0))) for mark in marks)
