"""A connection that keeps what it is sent, for tests of a hub without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from server.connection import Connection
from server.frames import Batch
from server.hub import LocalHub
from tests.support.waiting import patience


class RecordingConnection(Connection):
    """Attached to a hub on ``/ws``. ``writes`` counts the hub's writes, ``events`` are all events in order."""

    def __init__(self, hub: LocalHub, user: str | None = None, session: str | None = None, path: str = "/ws") -> None:
        super().__init__()
        self.hub = hub
        self.events: list[dict[str, Any]] = []
        self.writes = 0
        self.code = 0
        self._changed = asyncio.Event()
        self._waiting: list[bytes] = []
        hub.attach(self, path, user, session)

    # What the hub calls.

    def send(self, batch: Batch) -> None:
        self.writes += 1
        for part in batch.parts:
            self.events.append(orjson.loads(part.payload))
        self._changed.set()

    def send_event(self, payload: bytes) -> None:
        self.events.append(orjson.loads(payload))
        self._changed.set()

    def close(self, code: int, reason: str = "") -> None:
        if not self.code:
            self.code = code
            self._changed.set()

    def hold(self, why: int) -> None:
        self.held |= why

    def release(self, why: int) -> None:
        self.held &= ~why
        while self._waiting and not self.held:
            self.hub.received(self, self._waiting.pop(0), True)

    def outbound_bytes(self) -> int:
        return 0

    @property
    def closed(self) -> bool:
        return self.code != 0

    # What tests call.

    def ask(self, **request: object) -> None:
        """Send a request; it waits its turn like on a socket."""
        data = orjson.dumps(request)
        if self.held:
            self._waiting.append(data)
        else:
            self.hub.received(self, data, True)

    async def until(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0) -> dict[str, Any]:
        """The first event, from the beginning, of which ``wanted`` is true. It and those before it are taken away."""
        async with patience(timeout_s):
            while True:
                for index, event in enumerate(self.events):
                    if wanted(event):
                        del self.events[: index + 1]
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def reply(self, id: int | str, timeout_s: float = 30.0) -> dict[str, Any]:
        return await self.until(lambda event: event.get("op") == "reply" and event.get("id") == id, timeout_s)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The broadcasts of one type among what has not been taken away."""
        return [event for event in self.events if event.get("type") == kind]

    def leave(self, code: int = 1000) -> None:
        """The peer is gone."""
        self.code = self.code or code
        self.hub.lost(self, code)
