"""A server for the state machine to talk to: docs/protocol.md for one room, and all that can happen to its log.

Frames to the client wait in a queue, from which a test delivers, loses or doubles them. Requests are handled at once.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, NamedTuple

PAGE = 3
"""Messages of one reply; small, so that replies have ``more``."""


class LogEntry(NamedTuple):
    epoch: str
    offset: int
    prev: str
    tag: str
    data: Any
    key: str | None
    hidden_from: str | None
    """The session that asked not to get it back."""


class ModelServer:
    def __init__(self, room: str) -> None:
        self.room = room
        self.queue: deque[dict[str, Any]] = deque()
        self.every: dict[str, LogEntry] = {}
        """All that ever was in a log, by tag: what the application may be shown."""
        self.entries: list[LogEntry] = []
        self.trimmed = 0
        self.available = True
        self.connected = False
        self.session = ""
        self._live = False
        self._tags = 0
        self._epochs = 0
        self._new_epoch()

    @property
    def top(self) -> tuple[str, int, str]:
        if self.entries:
            return self.entries[-1].epoch, self.entries[-1].offset, self.entries[-1].tag
        return self.epoch, 0, "0"

    def _new_epoch(self) -> None:
        self._epochs += 1
        self.epoch = f"e{self._epochs}"
        self.entries, self.trimmed = [], 0

    # What happens to the log.

    def append(self, data: Any, key: str | None = None, hidden_from: str | None = None) -> LogEntry:
        epoch, offset, prev = self.top
        self._tags += 1
        entry = LogEntry(epoch, offset + 1, prev, f"t{self._tags}", data, key, hidden_from)
        self.entries.append(entry)
        self.every[entry.tag] = entry
        if self._live:
            self.queue.append(self._frame(entry))
        return entry

    def lose(self) -> None:
        """Redis came back empty."""
        self._new_epoch()
        self._tell_reset()

    def roll_back(self, n: int) -> None:
        """Redis came back with older data under the same epoch; what follows is a fork."""
        n = min(n, len(self.entries) - self.trimmed)
        if n:
            del self.entries[-n:]
            self._tell_reset()

    def move(self) -> None:
        """The application behind the server takes the client out of the room, or puts it in."""
        if not self.connected:
            return
        self._live = not self._live
        frame: dict[str, Any] = {"op": "broadcast", "type": "left", "room": self.room}
        if self._live:
            epoch, offset, tag = self.top
            frame |= {"type": "joined", "epoch": epoch, "offset": offset, "tag": tag}
        self.queue.append(frame)

    def trim(self) -> None:
        self.trimmed = len(self.entries)

    def _tell_reset(self) -> None:
        if self._live:
            epoch, offset, tag = self.top
            self.queue.append(
                {"op": "broadcast", "type": "reset", "room": self.room, "epoch": epoch, "offset": offset, "tag": tag}
            )

    # What happens to the connection.

    def connect(self, session: str | None) -> None:
        self.connected, self._live = True, False
        self.session = session or "s1"
        self.queue.clear()
        self.queue.append({"op": "welcome", "session": self.session, "node": "n", "user_id": 1, "max_message": 65536})

    def cut(self) -> None:
        self.connected = self._live = False
        self.queue.clear()

    # What the client asks for.

    def handle(self, frame: dict[str, Any], data: str | None) -> None:
        assert self.connected
        op = frame["op"]
        if op == "join":
            self._live = False
            if self.available:
                self._join(frame)
            else:
                self._reply(frame, ok=False, code="unavailable", message="try later")
        elif op == "message":
            if not self._live:
                self._reply(frame, ok=False, code="not_joined", message="join first")
            elif not self.available:
                self._reply(frame, ok=False, code="unavailable", message="try later")
            else:
                assert data is not None
                entry = next((e for e in self.entries if e.key == frame["key"]), None)
                hidden = None if frame.get("echo", True) else self.session
                entry = entry or self.append(json.loads(data), frame["key"], hidden)
                self._reply(frame, room=self.room, epoch=entry.epoch, offset=entry.offset, tag=entry.tag)
        else:
            self._reply(frame)

    def _join(self, frame: dict[str, Any]) -> None:
        epoch, offset, tag = self.top
        resume, messages, recovered, more = frame.get("resume"), [], None, False
        if resume is not None:
            missed = self._after(resume["epoch"], resume["offset"], resume["tag"])
            recovered = missed is not None
            if missed is not None:
                messages, more = missed[:PAGE], len(missed) > PAGE
                if more:
                    epoch, offset, tag = messages[-1].epoch, messages[-1].offset, messages[-1].tag
        if not recovered and frame.get("history"):
            messages = self.entries[self.trimmed :][-frame["history"] :]
        fields: dict[str, Any] = {
            "room": self.room,
            "epoch": epoch,
            "offset": offset,
            "tag": tag,
            "recovered": recovered,
        }
        fields["messages"] = [self._frame(entry) for entry in messages]
        if more:
            fields["more"] = True
        self._reply(frame, **fields)
        self._live = not more

    def _after(self, epoch: str, offset: int, tag: str) -> list[LogEntry] | None:
        """What follows this position; None if nobody can tell."""
        if epoch != self.epoch or not self.trimmed <= offset <= len(self.entries):
            return None
        if (self.entries[offset - 1].tag if offset else "0") != tag:
            return None
        return self.entries[offset:]

    def _frame(self, entry: LogEntry) -> dict[str, Any]:
        frame: dict[str, Any] = {"op": "broadcast", "room": self.room, "offset": entry.offset, "tag": entry.tag}
        if entry.hidden_from == self.session:
            return frame | {"type": "position"}
        return frame | {"type": "message", "user_id": 1, "ts": 1.5, "data": entry.data}

    def _reply(self, frame: dict[str, Any], ok: bool = True, **fields: Any) -> None:
        if "id" in frame:
            self.queue.append({"op": "reply", "id": frame["id"], "ok": ok, **fields})
