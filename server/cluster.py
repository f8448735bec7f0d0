"""What a node says to all nodes of the cluster, itself included, and what it does when it hears it.

Everything here goes through the broker, also for connections of this very node: one path, one order.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from broker.base import BrokerError, Position, Signal
from server import closing, events, jsontext, protocol
from server.census import Census
from server.connection import Connection
from server.frames import Prepared
from server.identity import Action, user_text
from server.names import room_matches
from server.outbox import Outbox
from server.payload import (
    CONTROL,
    AnySignal,
    BroadcastSignal,
    CensusAnswer,
    CensusSignal,
    DirectSignal,
    DisconnectSignal,
    ForgetSignal,
    MembershipSignal,
    RecheckSignal,
    SampleSignal,
    WatchSignal,
    decode_signal,
    encode_message,
    encode_signal,
)
from server.refusal import Refusal, forbidden
from server.revocation import Revoked
from server.watching import Watching

if TYPE_CHECKING:
    from server.hub import LocalHub


class Cluster:
    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self.census = Census(hub)
        self.watching = Watching(hub)

    # Said.

    async def publish(self, room: str, data: object) -> Position:
        """Append a message of the application (``user_id`` null) to the room's log. Here and below ValueError for data
        that is not JSON as clients may send it."""
        tail = events.message_tail("null", time.time(), jsontext.encode(data))
        return await self._hub.broker.append(room, encode_message(tail), history=self._hub.rooms.history(room))

    async def broadcast_json(self, path: str, data: object, exclude: Connection | None = None) -> None:
        """To every connection on the path, on all nodes. At most once, never logged."""
        await self._say(f"path:{path}", BroadcastSignal(None, jsontext.encode(data), "json", self._hub.origin(exclude)))

    async def broadcast(self, path: str, text: str, exclude: Connection | None = None) -> None:
        """The same with a text, which handler paths get as it stands."""
        await self._say(f"path:{path}", BroadcastSignal(None, text.encode(), "text", self._hub.origin(exclude)))

    async def send_to_user(self, user: str, data: object) -> None:
        """To every connection of the user (JSON text: ``42`` or ``"42"``). At most once, never logged."""
        await self._say(f"user:{user}", DirectSignal(jsontext.encode(data)))

    async def disconnect(
        self, user: str | None = None, *, session: str | None = None, token_id: str | None = None
    ) -> None:
        """Close connections on all nodes with 4004: those for which everything holds that is given. They may come back;
        see ``revocations`` for those that may not."""
        if user is None and session is None and token_id is None:
            raise ValueError("say whom to disconnect: user, session or token_id")
        signal = DisconnectSignal(closing.DISCONNECTED, "disconnected by an operator", session, token_id)
        await self._say(CONTROL if user is None else f"user:{user}", signal)

    async def recheck_rooms(self, user: str | None = None, room: str | None = None) -> None:
        """Ask grants and authorizers again, on all nodes, about the rooms that connections are in (of one user, in
        rooms that match a pattern); who may not be there is put out, who may not see who is there is no longer told."""
        await self._say(CONTROL if user is None else f"user:{user}", RecheckSignal(room))

    async def put_user(self, user: str, room: str, member: bool) -> None:
        """Put the connections that a user has now into a room, or take them out. Grants and authorizers are not asked;
        clients are told with ``joined`` and ``left``. At most once."""
        await self._say(f"user:{user}", MembershipSignal(room, member))

    async def forget_user(self, user: str) -> int:
        """Close the user's connections and remove their marks. Returns in how many rooms there was one."""
        await self.disconnect(user)
        rooms = await self._hub.broker.forget_user(user)
        await self._say(CONTROL, ForgetSignal(user))
        return rooms

    async def get_online_users(self) -> list[int | str]:
        """The ids of all users with an open connection anywhere, as they stand in their tokens. Raises
        :class:`broker.base.Unavailable`."""
        return [orjson.loads(user) for user in await self._hub.presence.look(None)]

    async def is_user_online(self, user: int | str) -> bool:
        """Raises :class:`broker.base.Unavailable`."""
        return await self._hub.broker.presence.online(user_text(user))

    async def room_members(self, room: str) -> list[int | str]:
        """The ids of the users in a room, on all nodes. Raises :class:`broker.base.Unavailable`."""
        return [orjson.loads(user) for user in await self._hub.presence.look(room)]

    async def _say(self, channel: str, signal: AnySignal) -> None:
        await self._hub.broker.publish(channel, encode_signal(signal))

    # Heard.

    def heard(self, channel: str, item: Signal, outbox: Outbox) -> None:
        """A signal on a path, a user or all nodes: carry it out, or put what it brings into the outbox."""
        try:
            signal = decode_signal(item.payload)
        except ValueError:
            self._hub.counts.foreign += 1
            return
        if isinstance(signal, BroadcastSignal):
            path = channel.removeprefix("path:")
            but = self._hub.by_origin(signal.origin, self._hub.at(path))
            if path == "/ws" or signal.form == "event":
                data = orjson.dumps(signal.data.decode()) if signal.form == "text" else signal.data
                outbox.add(Prepared(events.path_broadcast(path, signal.user, data)), but)
            else:
                outbox.add(Prepared(signal.data), but)
        elif isinstance(signal, DirectSignal):
            outbox.add(Prepared(events.direct(signal.data)))
        elif isinstance(signal, DisconnectSignal):
            for connection in self._hub.addressed(channel):
                if signal.session in (None, connection.session) and signal.token_id in (
                    None,
                    connection.identity.token_id,
                ):
                    connection.close(signal.code, signal.reason)
        elif isinstance(signal, RecheckSignal):
            for connection in self._hub.addressed(channel):
                self._hub.tasks.spawn(self.recheck(connection, signal.room), "check rooms again")
        elif isinstance(signal, MembershipSignal):
            for connection in self._hub.users.members(channel.removeprefix("user:")):
                self._hub.tasks.spawn(self.put(connection, signal), "put into a room")
        elif isinstance(signal, CensusSignal):
            self.census.asked(signal)
        elif isinstance(signal, CensusAnswer):
            self.census.answered(signal)
        elif isinstance(signal, ForgetSignal):
            self._hub.receipts.forget_user(signal.user)
        elif isinstance(signal, WatchSignal):
            self.watching.asked(signal)
        elif isinstance(signal, SampleSignal):
            self.watching.told(signal)

    async def recheck(self, connection: Connection, pattern: str | None = None) -> None:
        """The same for one connection."""
        if connection.raw:
            return
        rooms, presence = self._hub.rooms, self._hub.presence
        for room in rooms.of(connection):
            if pattern is not None and not room_matches(pattern, room):
                continue
            if not await self._allows(connection, "join", room):
                if rooms.has(room, connection):
                    rooms.leave(connection, room)
                    self._hub.left(connection, room)
                    _refuse(connection, room, forbidden("join"))
                    connection.send_event(events.left(room))  # the error alone could be about a frame of the client's
            elif presence.is_watching(room, connection) and not await self._allows(connection, "presence", room):
                if rooms.has(room, connection):  # else it left, or its join is under way, which was asked about itself
                    presence.unwatch(room, connection)
                    _refuse(connection, room, forbidden("presence"))

    async def _allows(self, connection: Connection, action: Action, room: str) -> bool:
        if not connection.identity.grants.allows(room, action):
            return False
        return self._hub.gate is None or await self._hub.gate.allows(connection, action, room)

    async def put(self, connection: Connection, signal: MembershipSignal) -> None:
        """Carry out what the application says of one connection."""
        hub, room = self._hub, signal.room
        if connection.closed or hub.rooms.has(room, connection) is signal.member:
            return
        if not signal.member:
            hub.rooms.leave(connection, room)
            hub.left(connection, room)
            connection.send_event(events.left(room))
            return
        try:
            waiting = hub.rooms.join(connection, protocol.Join(None, room))
            if waiting is not None:
                await waiting
        except Refusal as error:
            _refuse(connection, room, error)
        except BrokerError as error:
            connection.send_event(events.error(room, "unavailable", str(error)))
        else:
            if hub.rooms.has(room, connection):
                connection.send_event(events.joined(room, *hub.feed.rooms[room].top))
                if hub.gate is not None:
                    hub.gate.joined(connection, room)

    def revoked(self, revoked: Revoked) -> None:
        if revoked.kind == "session":
            suspects = list(self._hub.sessions.members(revoked.value))
        else:
            suspects = self._hub.addressed(f"user:{revoked.value}" if revoked.kind == "user" else CONTROL)
        for connection in suspects:
            if revoked.covers(connection.identity, connection.session):
                connection.close(closing.DISCONNECTED, "revoked by an operator")


def _refuse(connection: Connection, room: str, refusal: Refusal) -> None:
    connection.send_event(events.error(room, refusal.code, refusal.message))
