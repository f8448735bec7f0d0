"""What each op does, one method per op. They raise :class:`Refusal`; what must wait for others comes as a coroutine."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.base import BrokerError, Dedup, Position, Status
from server import events, protocol
from server.answers import Answers
from server.connection import Connection
from server.crowds import Crowds
from server.frames import Batch, Prepared
from server.identity import Identity, user_text
from server.payload import BroadcastSignal, ReceiptSignal, encode_message, encode_signal
from server.refusal import Refusal
from server.rosters import presence_list

if TYPE_CHECKING:
    from server.hub import LocalHub

logger = logging.getLogger("server.operations")

Waiting = Coroutine[Any, Any, None] | None


class Operations:
    def __init__(self, hub: LocalHub, answers: Answers) -> None:
        self._hub = hub
        self._answers = answers
        self._ok = answers.ok
        self._crowds = Crowds(hub.settings, lambda room: len(hub.rooms.members(room)))
        self._ops: dict[type, Callable[[Connection, Any], Waiting]] = {
            protocol.Join: self._join,
            protocol.Leave: self._leave,
            protocol.Message: self._message,
            protocol.Broadcast: self._broadcast,
            protocol.Typing: self._typing,
            protocol.Receipt: self._receipt,
            protocol.GetPresence: self._get_presence,
            protocol.HistoryRequest: self._history,
            protocol.Auth: self._auth,
            protocol.Ping: self._ping,
        }

    def perform(self, connection: Connection, request: protocol.Request) -> Waiting:
        return self._ops[type(request)](connection, request)

    def _member(self, connection: Connection, room: str) -> None:
        if not self._hub.rooms.has(room, connection):
            raise Refusal("not_joined", f"join {room!r} first")

    def _known(self, connection: Connection) -> str:
        if connection.user is None:
            raise Refusal("forbidden", "anonymous connections may not do this: connect with a user")
        return connection.user

    def _join(self, connection: Connection, request: protocol.Join) -> Waiting:
        hub, gate = self._hub, self._hub.gate
        if gate is None:
            return hub.rooms.join(connection, request)
        member = hub.rooms.has(request.room, connection)
        waiting = hub.rooms.join(connection, request)
        if waiting is not None:
            return self._join_and_tell(connection, request.room, member, waiting)
        if not member:
            gate.joined(connection, request.room)
        return None

    async def _join_and_tell(
        self, connection: Connection, room: str, member: bool, waiting: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await waiting
        finally:
            gate, now = self._hub.gate, self._hub.rooms.has(room, connection)
            if gate is not None and now != member and not connection.closed:
                (gate.joined if now else gate.left)(connection, room)

    def _leave(self, connection: Connection, request: protocol.Leave) -> Waiting:
        if self._hub.rooms.has(request.room, connection):
            self._hub.rooms.leave(connection, request.room)
            self._hub.left(connection, request.room)
        self._ok(connection, request, {"room": request.room})
        return None

    def _message(self, connection: Connection, request: protocol.Message) -> Waiting:
        self._member(connection, request.room)
        self._crowds.message(request.room)
        tail = events.message_tail(connection.user or "null", time.time(), request.data)
        future = self._hub.broker.append(
            request.room,
            encode_message(tail, "" if request.echo else connection.session),
            history=self._hub.rooms.history(request.room),
            dedup=Dedup(_sender(connection), request.key) if request.key is not None else None,
            author=connection.user,
        )
        if connection.acks is None:
            connection.acks = deque()
        connection.acks.append((future, request))
        future.add_done_callback(partial(self._flush_acks, connection))
        return None

    def _flush_acks(self, connection: Connection, _: object) -> None:
        """Send the acks that are due, those of one answer of the broker in one write. They stay in order even when a
        later append failed before an earlier one was done."""
        acks = connection.acks
        due: list[Prepared] = []
        while acks and acks[0][0].done():
            future, request = acks.popleft()
            error = future.exception()
            if error is None:
                if request.id is not None:
                    due.append(Prepared(events.reply_ok(request.id, _told(request.room, future.result()))))
                continue
            _send(connection, due)
            due = []
            if isinstance(error, BrokerError):
                self._answers.failed(connection, request, error)
            else:
                logger.error("append failed", exc_info=error)
                self._answers.refuse(connection, request, "internal", "the server failed on this request")
        _send(connection, due)
        if acks is not None and not acks:
            connection.acks = None

    def _broadcast(self, connection: Connection, request: protocol.Broadcast) -> Waiting:
        gate = self._hub.gate
        allowed = self._hub.settings.dev or connection.identity.grants.broadcast or (gate and gate.broadcast)
        if not allowed:
            raise Refusal("forbidden", "this application does not allow clients to broadcast")
        signal = BroadcastSignal(connection.user, request.data, "event", None)
        self._signal(f"path:{connection.path}", signal)
        self._ok(connection, request)
        return None

    def _typing(self, connection: Connection, request: protocol.Typing) -> Waiting:
        self._member(connection, request.room)
        user = self._known(connection)
        self._crowds.signal(request.room)
        self._reachable()
        self._hub.feed.typing.said(connection, request.room, user, request.typing)
        self._ok(connection, request)
        return None

    def _receipt(self, connection: Connection, request: protocol.Receipt) -> Waiting:
        self._member(connection, request.room)
        user = self._known(connection)
        self._crowds.signal(request.room)
        if isinstance(request.message_id, int) and self._hub.feed.has_reached(request.room, request.message_id):
            return self._move_mark(connection, request, user, request.message_id)
        # Not a message of this log: an id of the application's own, relayed only.
        signal = ReceiptSignal(user, request.message_id, request.status, self._origin(connection))
        self._signal(f"room:{request.room}", signal)
        self._ok(connection, request)
        return None

    async def _move_mark(self, connection: Connection, request: protocol.Receipt, user: str, offset: int) -> None:
        status: Status = "read" if request.status == "read" else "delivered"
        await self._hub.receipts.move(request.room, user, status, offset, self._origin(connection))
        self._ok(connection, request)

    def _get_presence(self, connection: Connection, request: protocol.GetPresence) -> Waiting:
        mode = self._hub.settings.presence_broadcast
        if request.room is not None:
            self._member(connection, request.room)
        if mode == "none" or (request.room is None and mode != "all"):
            raise Refusal("forbidden", "presence is not offered here: see ROOMCAST_PRESENCE_BROADCAST")
        if self._hub.presence.is_live(request.room):
            self._tell_presence(connection, request, self._hub.presence.users(request.room))
            return None
        return self._look_up_presence(connection, request)

    async def _look_up_presence(self, connection: Connection, request: protocol.GetPresence) -> None:
        self._tell_presence(connection, request, await self._hub.presence.look(request.room))

    def _tell_presence(self, connection: Connection, request: protocol.GetPresence, users: list[str]) -> None:
        after = None if request.after is None else user_text(request.after)
        connection.send_event(presence_list(users, request.room, after))
        self._ok(connection, request)

    def _history(self, connection: Connection, request: protocol.HistoryRequest) -> Waiting:
        self._member(connection, request.room)
        return self._hub.rooms.page(connection, request)

    def _auth(self, connection: Connection, request: protocol.Auth) -> Waiting:
        if self._hub.renew is None:
            raise Refusal("forbidden", "tokens cannot be replaced here")
        by = connection.user or f"connection {connection.id}"
        return self._replace_token(connection, request, self._hub.renew(request.token, by))

    async def _replace_token(
        self, connection: Connection, request: protocol.Auth, renewal: Awaitable[Identity]
    ) -> None:
        """Another user's token leaves the old one in force."""
        identity = await renewal
        if identity.user != connection.user:
            raise Refusal("forbidden", "the token is another user's: open a connection of its own with it")
        if self._hub.revocations.refuses(identity, connection.session):
            raise Refusal("unauthorized", "the token has been revoked: get a new one")
        connection.identity = identity
        self._hub.expiry.watch(connection, identity.expires_at)
        self._ok(connection, request)
        await self._hub.cluster.recheck(connection)

    def _ping(self, connection: Connection, request: protocol.Ping) -> Waiting:
        connection.send_event(events.pong(request.id))
        return None

    def _origin(self, connection: Connection) -> Any:
        return self._hub.origin(connection)

    def _reachable(self) -> None:
        if not self._hub.broker.ready:
            raise Refusal("unavailable", "the node cannot reach its broker: try again after `restored`")

    def _signal(self, channel: str, signal: Any) -> None:
        self._reachable()
        self._hub.broker.publish(channel, encode_signal(signal))


def _sender(connection: Connection) -> str:
    """Whose retry key it is. A session that somebody has got hold of is of no use to another user."""
    return f"{connection.user or ''}:{connection.session}"


def _told(room: str, top: Position) -> dict[str, object]:
    return {"room": room, "epoch": top.epoch.decode(), "offset": top.offset, "tag": top.tag.decode()}


def _send(connection: Connection, due: list[Prepared]) -> None:
    if len(due) == 1:
        connection.send_event(due[0].payload)
    elif due:
        connection.send(Batch(due))
