"""One client that follows the protocol's rules for coming back (docs/protocol.md): it waits as ``drain`` asks or backs
off, resumes every room where it was, and publishes again, with the same key, what was not acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from loadtests.websocket import WebSocket

BASE_S, CAP_S = 0.5, 30.0
"""Full jitter between 0 and this, doubled by every failure in a row."""
RETRY_S = 0.2
"""A refused request is asked again after this."""


class Position(NamedTuple):
    epoch: str
    offset: int
    tag: str


class Seen(NamedTuple):
    """One message of a room as a member got it, or as its publisher was told."""

    room: str
    offset: int
    tag: str
    data: Any


class Member:
    """``heard`` is told of every message, ``acked`` of every acknowledgement."""

    def __init__(
        self, user: str, rooms: list[str], address: tuple[str, int], heard: Callable[[Seen], None], watches: str = ""
    ) -> None:
        self.user = user
        self.address = address
        self.places: dict[str, Position | None] = dict.fromkeys(rooms)
        self.watches = watches
        """The room of whose presence it hears."""
        self.heard = heard
        self.acked: Callable[[Seen], None] = heard
        self.node = ""
        self.live: set[str] = set()
        self.tried_s: list[float] = []
        """When it tried to come back, after having been welcomed once."""
        self.closes: list[int] = []
        self.holes = self.repeats = self.resets = 0
        self.presence: list[tuple[Any, str]] = []
        """What it was told of others who came and went."""
        self.present = 0
        """How many users are in that room, by the last answer to :meth:`count`."""
        self.unacked: dict[str, tuple[str, Any]] = {}
        self.over = self._away = False
        self._session = ""
        self._socket: WebSocket | None = None
        self._requests: dict[int, tuple[str, str]] = {}
        self._next_id = 0
        self._failures = 0
        self._wait_s: float | None = None
        self._connecting: asyncio.Task[None] | None = None

    # What is asked of it.

    def connect(self) -> None:
        self._away = False
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def publish(self, room: str, key: str, data: Any) -> None:
        """Now, or as soon as it is back in the room."""
        self.unacked[key] = (room, data)
        if room in self.live:
            self._ask("message", key, room=room, key=key, data=data)

    def count(self) -> None:
        """Ask who is in the room that it watches."""
        self._ask("get_presence", self.watches, room=self.watches)

    def leave(self) -> None:
        self.over = True
        if self._socket is not None:
            self._socket.close()

    def drop(self) -> None:
        """Lose the connection, and stay away until :meth:`connect`."""
        self._away = True
        if self._socket is not None:
            self._socket.abort()

    @property
    def here(self) -> bool:
        """In all of its rooms."""
        return len(self.live) == len(self.places)

    # Coming back.

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._session:
            self.tried_s.append(loop.time())
        host, port = self.address
        query = f"?user={self.user}" + (f"&session={self._session}" if self._session else "")
        self._socket = WebSocket(self, f"{host}:{port}", f"/ws{query}")
        socket = self._socket
        try:
            await loop.create_connection(lambda: socket, host, port)
        except OSError:
            self.closed(1006)

    def closed(self, code: int) -> None:
        self.live.clear()
        self._requests.clear()
        if self.over or self._away:
            return
        self.closes.append(code)
        wait_s, self._wait_s = self._wait_s, None
        if wait_s is None:
            wait_s = random.random() * min(CAP_S, BASE_S * 2**self._failures)
            self._failures += 1
        asyncio.get_running_loop().call_later(wait_s, self.connect)

    def opened(self) -> None:
        pass  # the node speaks first

    # Talking.

    def _ask(self, op: str, about: str, **fields: Any) -> None:
        self._next_id += 1
        self._requests[self._next_id] = (op, about)
        if self._socket is not None:
            self._socket.send(orjson.dumps({"op": op, "id": self._next_id, **fields}))

    def _join(self, room: str) -> None:
        if self._socket is None or not self._socket.is_open:
            return
        fields: dict[str, Any] = {"presence": True} if room == self.watches else {}
        place = self.places[room]
        if place is not None:
            fields["resume"] = place._asdict()
        self._ask("join", room, room=room, **fields)

    def received(self, text: bytes) -> None:
        frame = orjson.loads(text)
        op = frame["op"]
        if op == "broadcast":
            self._broadcast(frame)
        elif op == "reply":
            self._replied(frame, *self._requests.pop(frame["id"]))
        elif op == "welcome":
            self.node, self._session = frame["node"], frame["session"]
            self._failures = 0
            for room in self.places:
                self._join(room)
        elif op == "drain":
            self._wait_s = frame["retry_after_ms"] / 1000

    def _broadcast(self, frame: dict[str, Any]) -> None:
        kind, room = frame["type"], str(frame.get("room"))
        if kind == "message":
            self._message(room, frame)
        elif kind == "reset":
            self.resets += 1
            self.places[room] = Position(frame["epoch"], frame["offset"], frame["tag"])
        elif kind == "presence" and frame["user_id"] != self.user:
            self.presence.append((frame["user_id"], frame["status"]))
        elif kind == "presence_list" and room == self.watches:
            self.present = frame["count"]

    def _message(self, room: str, frame: dict[str, Any]) -> None:
        place = self.places[room]
        assert place is not None, "a message before the reply to the join"
        expected = place.offset + 1
        if frame["offset"] < expected:
            self.repeats += 1
            return
        self.holes += frame["offset"] - expected
        self.places[room] = Position(place.epoch, frame["offset"], frame["tag"])
        self.heard(Seen(room, frame["offset"], frame["tag"], frame["data"]))

    def _replied(self, reply: dict[str, Any], op: str, about: str) -> None:
        if op == "join":
            if reply["ok"]:
                self._joined(about, reply)
            else:
                asyncio.get_running_loop().call_later(RETRY_S, self._join, about)
        elif about in self.unacked:
            room, data = self.unacked[about]
            if reply["ok"]:
                del self.unacked[about]
                self.acked(Seen(room, reply["offset"], reply["tag"], data))
            else:
                asyncio.get_running_loop().call_later(RETRY_S, self.publish, room, about, data)

    def _joined(self, room: str, reply: dict[str, Any]) -> None:
        at = Position(reply["epoch"], reply["offset"], reply["tag"])
        if reply["recovered"] is False:
            self.resets += 1
        elif reply["recovered"]:
            for message in reply["messages"]:
                self._message(room, message)
            if self.places[room] != at:
                self.holes += 1
        self.places[room] = at
        if reply.get("more"):
            self._join(room)
            return
        self.live.add(room)
        for key, (into, data) in list(self.unacked.items()):
            if into == room:
                self._ask("message", key, room=room, key=key, data=data)
