"""What clients may ask, one method per op (docs/protocol.md, "Client → server").

Requests of one connection are handled in order. An op that needs nobody else is done at once; one that must wait for an
authorizer or the broker returns a coroutine, and the connection reads no further request until it has ended. Only
``message`` does not wait for its ack: acks follow in order among themselves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.base import BrokerError, Dedup, OutcomeUnknown, Position, Status
from server import closing, events, protocol
from server.connection import BUSY, Connection
from server.identity import Action, Identity, user_text
from server.limits import REFUSALS, Budget, Rates
from server.payload import BroadcastSignal, ReceiptSignal, encode_message, encode_signal
from server.presence import presence_list
from server.refusal import REFUSED_JOIN, Refusal

if TYPE_CHECKING:
    from server.hub import LocalHub

logger = logging.getLogger("server.requests")

BAD_REQUESTS, BAD_REQUESTS_WITHIN_S = 10, 10.0

Waiting = Coroutine[Any, Any, None] | None

_ASKED: dict[type, Action] = {
    protocol.Join: "join",
    protocol.Message: "publish",
    protocol.HistoryRequest: "history",
    protocol.GetPresence: "presence",
}
"""What grants and authorizers are asked for, per kind of request."""


class Requests:
    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        settings = hub.settings
        self._limits = protocol.Limits(max_message_bytes=settings.max_message_bytes)
        self._rates = Rates(
            settings.requests_per_s,
            settings.requests_burst,
            settings.inbound_bytes_per_s,
            settings.inbound_bytes_burst,
        )
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

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        now_s = time.monotonic()
        budget = connection.budget
        if budget is None:
            budget = connection.budget = Budget(self._rates, now_s)
        verdict = budget.spend(len(data), self._rates, now_s)
        if verdict == "close":
            connection.close(closing.RATE_LIMITED, f"{REFUSALS} requests over the limit: back off")
            return
        if text == connection.packed:
            if not text and connection.handler is not None and connection.handler.takes_messages:
                connection.to_application(data, text)
                return
            spoken = "msgpack in binary frames" if connection.packed else "JSON in text frames"
            connection.close(closing.WRONG_KIND, f"this connection speaks {spoken}")
            return
        try:
            request = protocol.parse(data, self._limits) if text else protocol.parse_packed(data, self._limits)
        except protocol.NotUtf8:
            connection.close(closing.INVALID_DATA, "a text frame must be UTF-8")
            return
        except protocol.BadRequest as error:
            handler = connection.handler
            if handler is not None and handler.takes_messages and isinstance(error, protocol.NotAnOperation):
                connection.to_application(data, text)
            else:
                self._bad(connection, error)
            return
        if verdict == "refuse":
            self.refuse(connection, request, "rate_limited", "too many requests: slow down, then send it again")
            return
        try:
            waiting = self._perform(connection, request)
        except Refusal as error:
            self.refuse(connection, request, error.code, error.message)
        except Exception:
            logger.exception("op %r failed", request.op)
            self.refuse(connection, request, "internal", "the server failed on this request")
        else:
            if waiting is not None:
                connection.hold(BUSY)
                self._hub.tasks.spawn(self._finish(connection, request, waiting), f"op {request.op}")

    def _perform(self, connection: Connection, request: protocol.Request) -> Waiting:
        """Carry out a request that grants and authorizers allow. Raises :class:`Refusal`."""
        action, room = _ASKED.get(type(request)), getattr(request, "room", None)
        if action is not None and room is not None:
            if not connection.identity.grants.allows(room, action):
                raise _forbidden(action)
            gate = self._hub.gate
            review = gate.review(connection, action, room, request) if gate is not None else None
            if review is not None:
                return self._perform_reviewed(connection, review)
        return self._ops[type(request)](connection, request)

    async def _perform_reviewed(self, connection: Connection, review: Coroutine[Any, Any, protocol.Request]) -> None:
        request = await review
        if connection.closed:
            return
        waiting = self._ops[type(request)](connection, request)
        if waiting is not None:
            await waiting

    async def _finish(
        self, connection: Connection, request: protocol.Request, waiting: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await waiting
        except Refusal as error:
            self.refuse(connection, request, error.code, error.message)
        except BrokerError as error:
            self.refuse(connection, request, _code(error), str(error))
        except Exception:
            logger.exception("op %r failed", request.op)
            self.refuse(connection, request, "internal", "the server failed on this request")
        finally:
            connection.release(BUSY)

    # Answers.

    def refuse(self, connection: Connection, request: protocol.Request, code: str, message: str) -> None:
        room = getattr(request, "room", None)
        self._answer_error(connection, request.id, isinstance(request, protocol.Join), room, code, message)

    def _answer_error(
        self, connection: Connection, id: int | str | None, join: bool, room: str | None, code: str, message: str
    ) -> None:
        self._hub.counts.errors += 1
        if join or id is None:
            connection.send_event(events.error(room, code, message))
        if id is not None:
            connection.send_event(events.reply_error(id, code, message))

    def _bad(self, connection: Connection, error: protocol.BadRequest) -> None:
        self._answer_error(connection, error.id, error.op == "join", error.room, error.code, error.message)
        now = time.monotonic()
        recent = connection.bad_requests
        if recent is None:
            recent = connection.bad_requests = deque(maxlen=BAD_REQUESTS)
        recent.append(now)
        if len(recent) == BAD_REQUESTS and now - recent[0] <= BAD_REQUESTS_WITHIN_S:
            connection.close(closing.BAD_REQUESTS, f"{BAD_REQUESTS} bad requests: fix the program")

    def _ok(self, connection: Connection, request: protocol.Request, fields: dict[str, object] | None = None) -> None:
        if request.id is not None:
            connection.send_event(events.reply_ok(request.id, fields or {}))

    def _member(self, connection: Connection, room: str) -> None:
        if not self._hub.rooms.has(room, connection):
            raise Refusal("not_joined", f"join {room!r} first")

    def _known(self, connection: Connection) -> str:
        if connection.user is None:
            raise Refusal("forbidden", "anonymous connections may not do this: connect with a user")
        return connection.user

    # Ops.

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
        tail = events.message_tail(connection.user or "null", time.time(), request.data)
        future = self._hub.broker.append(
            request.room,
            encode_message(tail, "" if request.echo else connection.session),
            history=self._hub.rooms.history(request.room),
            dedup=Dedup(connection.session, request.key) if request.key is not None else None,
        )
        if connection.acks is None:
            connection.acks = deque()
        connection.acks.append((future, partial(self._ack, connection, request, future)))
        future.add_done_callback(partial(_flush_acks, connection))
        return None

    def _ack(self, connection: Connection, request: protocol.Message, future: asyncio.Future[Position]) -> None:
        error = future.exception()
        if error is None:
            top = future.result()
            if connection.user is not None:
                self._hub.receipts.published(request.room, connection.user, top.offset)
            self._ok(
                connection,
                request,
                {"room": request.room, "epoch": top.epoch.decode(), "offset": top.offset, "tag": top.tag.decode()},
            )
        elif isinstance(error, BrokerError):
            self.refuse(connection, request, _code(error), str(error))
        else:
            logger.error("append failed", exc_info=error)
            self.refuse(connection, request, "internal", "the server failed on this request")

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
        self._reachable()
        self._hub.feed.typing.said(connection, request.room, user, request.typing)
        self._ok(connection, request)
        return None

    def _receipt(self, connection: Connection, request: protocol.Receipt) -> Waiting:
        self._member(connection, request.room)
        user = self._known(connection)
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
        return self._replace_token(connection, request, self._hub.renew(request.token))

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


def _forbidden(action: Action) -> Refusal:
    """What a request gets that grants or authorizers do not allow."""
    return Refusal("forbidden", REFUSED_JOIN if action == "join" else f"you may not use this room for: {action}")


def _code(error: BrokerError) -> str:
    return "timeout" if isinstance(error, OutcomeUnknown) else "unavailable"


def _flush_acks(connection: Connection, _: object) -> None:
    """Send the acks that are due. They stay in order even when a later append failed before an earlier one was done."""
    acks = connection.acks
    while acks and acks[0][0].done():
        _, ack = acks.popleft()
        ack()
    if acks is not None and not acks:
        connection.acks = None
