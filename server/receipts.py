"""How far the users of a room have got in its log, as this node knows it.

The marks themselves are in the broker, where the maximum wins. A node reads them once per room and keeps its copy up by
the receipts it hears and by the messages themselves (publishing moves the author's own mark), so that a join costs no
read. After anything may have been missed the copy is thrown away and read again with the next join.
"""

from __future__ import annotations

import asyncio

import orjson

from broker.base import Broker, Status, Unavailable
from server.payload import Origin, ReceiptSignal, encode_signal
from server.tasks import Tasks

TOLD = 200
"""Marks in one join reply: the most advanced ones, and the asker's own."""
MAX_COPY = 10_000
"""Marks kept of one room; of a larger one they are read with each join."""


class Marks:
    """The copy of one room: user (JSON text) -> (delivered, read). Pure."""

    __slots__ = ("users",)

    def __init__(self) -> None:
        self.users: dict[str, tuple[int, int]] = {}

    def advance(self, user: str, status: str, offset: int) -> None:
        """The maximum wins; ``read`` implies ``delivered``."""
        delivered, read = self.users.get(user, (0, 0))
        if status == "read" and offset > read:
            read = offset
        self.users[user] = max(delivered, read, offset), read

    def told(self, asker: str | None) -> list[dict[str, object]]:
        users = sorted(self.users, key=lambda user: self.users[user][1], reverse=True)
        shown = users[:TOLD]
        if asker in self.users and asker not in shown:
            shown.append(asker)
        return [
            {"user_id": orjson.Fragment(user), "delivered": self.users[user][0], "read": self.users[user][1]}
            for user in shown
        ]

    def unread(self, asker: str, top: int) -> int:
        return max(0, top - self.users.get(asker, (0, 0))[1])


class Receipts:
    def __init__(self, broker: Broker, tasks: Tasks) -> None:
        self._broker = broker
        self._tasks = tasks
        self._marks: dict[str, Marks] = {}
        self._loading: dict[str, asyncio.Future[None]] = {}

    # The copy.

    def known(self, room: str) -> Marks | None:
        """The copy, if it is whole."""
        return None if room in self._loading else self._marks.get(room)

    async def load(self, room: str) -> None:
        """Read the marks if they are not known. Many may wait for one read. Raises :class:`Unavailable`."""
        loading = self._loading.get(room)
        if loading is None:
            if room in self._marks:
                return
            loading = self._loading[room] = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._load(room, loading), "read marks")
        await asyncio.shield(loading)

    async def _load(self, room: str, loading: asyncio.Future[None]) -> None:
        marks = self._marks[room] = Marks()  # what is heard while reading counts, too
        try:
            for user, delivered, read in await self._broker.marks(room):
                marks.advance(user, "delivered", delivered)
                marks.advance(user, "read", read)
        except Unavailable as error:
            self.forget(room)
            loading.set_exception(error)
            loading.exception()  # looked at: whoever waited may be gone
        else:
            loading.set_result(None)
        finally:
            del self._loading[room]
            if not loading.done():
                loading.cancel()

    def heard(self, room: str, user: str, status: str, offset: int) -> None:
        marks = self._marks.get(room)
        if marks is not None:
            marks.advance(user, status, offset)
            if len(marks.users) > MAX_COPY:
                self.forget(room)

    def forget_user(self, user: str) -> None:
        """Nothing is kept about this user any more."""
        for marks in self._marks.values():
            marks.users.pop(user, None)

    def forget(self, room: str) -> None:
        """Something may have been missed, or nobody is here any more."""
        self._marks.pop(room, None)

    # Moving marks.

    async def move(self, room: str, user: str, status: Status, offset: int, origin: Origin) -> None:
        """A client says how far it got. Others are told only if the mark moved. Raises BrokerError."""
        payload = encode_signal(ReceiptSignal(user, offset, status, origin))
        await self._broker.advance(room, user, status, offset, payload)
