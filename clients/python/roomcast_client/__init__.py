"""Roomcast from Python: rooms whose messages arrive once and in order, over any number of reconnects.

::

    async with Roomcast("ws://localhost:8000/ws", user="alice") as rc:
        room = await rc.join("lobby", history=20)
        await room.send({"text": "hello"})
        async for message in room:
            print(message.user_id, message.data)
"""

from roomcast_client.client import Roomcast
from roomcast_client.errors import Closed, Disconnected, OutcomeUnknown, Refused, Removed, RoomcastError, Unavailable
from roomcast_client.events import (
    Ack,
    Broadcast,
    ClientEvent,
    Connected,
    Degraded,
    Direct,
    Draining,
    Joined,
    Lost,
    Mark,
    Message,
    Position,
    Presence,
    PutIn,
    PutOut,
    Receipt,
    Reset,
    Restored,
    RoomEvent,
    Roster,
    Trouble,
    Typing,
    UserId,
)
from roomcast_client.room import Room

__all__ = [
    "Ack",
    "Broadcast",
    "ClientEvent",
    "Closed",
    "Connected",
    "Degraded",
    "Direct",
    "Disconnected",
    "Draining",
    "Joined",
    "Lost",
    "Mark",
    "Message",
    "OutcomeUnknown",
    "Position",
    "Presence",
    "PutIn",
    "PutOut",
    "Receipt",
    "Refused",
    "Removed",
    "Reset",
    "Restored",
    "Room",
    "RoomEvent",
    "Roomcast",
    "RoomcastError",
    "Roster",
    "Trouble",
    "Typing",
    "Unavailable",
    "UserId",
]
