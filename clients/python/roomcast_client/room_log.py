"""Where the application stands in one room's log: messages arrive once, in order, without a hole. Pure.

A frame is applied if, and only if, it is the next one: same epoch, offset one higher. Lower ones are duplicates. A
higher one means a hole: the room is joined again from the position, and what was missed comes in the reply. Where the
server cannot fill the hole it says so, and the application gets a :class:`Reset` between the two runs of messages.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from roomcast_client.events import Message, Position, Reset

Frame = Mapping[str, Any]


class Hole(Exception):
    """A live frame came too early: something before it is missing."""


class Violation(Exception):
    """The server contradicts its own protocol: drop the connection, start over from the position."""


class RoomLog:
    """``position`` is None before the first join."""

    __slots__ = ("_after_reset", "position", "room")

    def __init__(self, room: str, position: Position | None = None) -> None:
        self.room = room
        self.position = position
        self._after_reset = False

    def live(self, frame: Frame) -> Message | None:
        """A ``message`` or ``position`` frame of a live room. None: nothing to tell. Raises :class:`Hole`."""
        position = self.position
        if position is None:
            raise Violation("a message before the reply to the join")
        offset = _offset(frame)
        if offset <= position.offset:
            return None
        if offset > position.offset + 1:
            raise Hole
        after, message = Position(position.epoch, offset, str(frame["tag"])), None
        if frame["type"] == "message":
            message = parse_message(self.room, position.epoch, frame, self._after_reset)
            self._after_reset = False
        self.position = after
        return message

    def reset(self, frame: Frame) -> Reset:
        """A ``reset`` frame of a live room."""
        self.position = _position(frame)
        self._after_reset = True
        return Reset(self.room, self.position)

    def reply(self, reply: Frame, resumed: bool) -> list[Message | Reset]:
        """The reply to a join. ``resumed``: this position was sent with it. Raises :class:`Violation`, and then nothing
        was applied."""
        top, frames = _position(reply), reply.get("messages", [])
        for before, after in itertools.pairwise(frames):
            if _offset(after) != _offset(before) + 1:
                raise Violation(f"a hole before {_offset(after)} in a reply")
        if frames and _offset(frames[-1]) != top.offset:
            raise Violation(f"a reply ends at {_offset(frames[-1])} and says {top.offset}")
        out: list[Message | Reset] = []
        position, after_reset = self.position, self._after_reset
        if position is not None and resumed and reply.get("recovered") is True:
            frames = [frame for frame in frames if _offset(frame) > position.offset]
            first = _offset(frames[0]) if frames else top.offset + 1
            if top.epoch != position.epoch or first != position.offset + 1:
                raise Violation(f"recovered {first}…{top.offset} of {top.epoch}, asked after {position}")
        elif position is not None:
            out.append(Reset(self.room, top))
            after_reset = True
        for frame in frames:
            if frame["type"] == "message":
                out.append(parse_message(self.room, top.epoch, frame, after_reset))
                after_reset = False
        # Only now, with nothing left that could fail.
        self.position, self._after_reset = top, after_reset
        return out


def parse_message(room: str, epoch: str, frame: Frame, after_reset: bool = False) -> Message:
    """One ``message`` frame. KeyError or TypeError for what is none."""
    user_id, ts = frame.get("user_id"), float(frame["ts"])
    return Message(room, epoch, _offset(frame), str(frame["tag"]), user_id, ts, frame["data"], after_reset)


def _offset(frame: Frame) -> int:
    offset = frame["offset"]
    if type(offset) is not int or offset < 0:
        raise Violation(f"the offset {offset!r}")
    return offset


def _position(frame: Frame) -> Position:
    return Position(str(frame["epoch"]), _offset(frame), str(frame["tag"]))
