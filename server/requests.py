"""How requests are taken in (docs/protocol.md, "Client → server"): limits, parsing, permission and order.

What each op does stands in server/operations.py.

Requests of one connection are handled in order. An op that needs nobody else is done at once; one that must wait for an
authorizer or the broker returns a coroutine, and the connection reads no further request until it has ended. Only
``message`` does not wait for its ack: acks follow in order among themselves.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from broker.base import BrokerError
from server import closing, events, protocol
from server.answers import Answers
from server.connection import BUSY, Connection
from server.identity import Action
from server.limits import REFUSALS, RETRY_AFTER_S, Budget, Rates, Verdict
from server.operations import Operations, Waiting
from server.refusal import Refusal, forbidden

if TYPE_CHECKING:
    from server.hub import LocalHub

logger = logging.getLogger("server.requests")

BAD_REQUESTS, BAD_REQUESTS_WITHIN_S = 10, 10.0

_ASKED: dict[type, tuple[Action, ...]] = {
    protocol.Join: ("join",),
    protocol.Message: ("publish",),
    protocol.HistoryRequest: ("history",),
    protocol.GetPresence: ("presence",),
}
"""What grants and authorizers are asked for, per kind of request; see also ``_asked``."""
_READS = {protocol.HistoryRequest, protocol.GetPresence}
TOO_FAST: Final = "too many requests: slow down, then send it again"


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
            settings.reads_per_s,
            settings.reads_burst,
        )
        self._answers = Answers(hub.counts)
        self._operations = Operations(hub, self._answers)

    def received(self, connection: Connection, data: bytes, text: bool) -> None:
        now_s = time.monotonic()
        budget = connection.budget
        if budget is None:
            budget = connection.budget = Budget(self._rates, now_s)
        verdict = budget.spend(len(data), self._rates, now_s)
        if verdict == "close":
            self._end(connection)
            return
        if text == connection.packed:
            if not text and connection.handler is not None and connection.handler.takes_messages:
                self._for_application(connection, data, text, verdict)
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
                self._for_application(connection, data, text, verdict)
            else:
                self._bad(connection, error)
            return
        if verdict == "ok" and type(request) in _READS:
            verdict = budget.spend_read(self._rates, now_s)
        if verdict == "close":
            self._end(connection)
        elif verdict == "refuse":
            self._answers.refuse(connection, request, "rate_limited", TOO_FAST)
        else:
            self._carry_out(connection, request)

    def _for_application(self, connection: Connection, data: bytes, text: bool, verdict: Verdict) -> None:
        """A message that is no op, on an endpoint whose handler takes those."""
        if verdict == "ok":
            connection.to_application(data, text)
        else:
            self._answers.error(connection, None, False, None, "rate_limited", TOO_FAST)

    def _end(self, connection: Connection) -> None:
        connection.send_event(events.backoff(RETRY_AFTER_S))
        connection.close(closing.RATE_LIMITED, f"{REFUSALS} requests over the limit: back off")

    def _carry_out(self, connection: Connection, request: protocol.Request) -> None:
        try:
            waiting = self._perform(connection, request)
        except Refusal as error:
            self._answers.refuse(connection, request, error.code, error.message)
        except Exception:
            logger.exception("op %r failed", request.op)
            self._answers.refuse(connection, request, "internal", "the server failed on this request")
        else:
            if waiting is not None:
                connection.hold(BUSY)
                self._hub.tasks.spawn(self._finish(connection, request, waiting), f"op {request.op}")

    def _perform(self, connection: Connection, request: protocol.Request) -> Waiting:
        """Carry out a request that grants and authorizers allow. Raises :class:`Refusal`."""
        actions, room = _asked(request), getattr(request, "room", None)
        if actions and room is not None:
            for action in actions:
                if not connection.identity.grants.allows(room, action):
                    raise forbidden(action)
            gate = self._hub.gate
            review = gate.review(connection, actions, room, request) if gate is not None else None
            if review is not None:
                return self._perform_reviewed(connection, review)
        return self._operations.perform(connection, request)

    async def _perform_reviewed(self, connection: Connection, review: Coroutine[Any, Any, protocol.Request]) -> None:
        request = await review
        if connection.closed:
            return
        waiting = self._operations.perform(connection, request)
        if waiting is not None:
            await waiting

    async def _finish(
        self, connection: Connection, request: protocol.Request, waiting: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await waiting
        except Refusal as error:
            self._answers.refuse(connection, request, error.code, error.message)
        except BrokerError as error:
            self._answers.failed(connection, request, error)
        except Exception:
            logger.exception("op %r failed", request.op)
            self._answers.refuse(connection, request, "internal", "the server failed on this request")
        finally:
            connection.release(BUSY)

    def _bad(self, connection: Connection, error: protocol.BadRequest) -> None:
        self._answers.error(connection, error.id, error.op == "join", error.room, error.code, error.message)
        now = time.monotonic()
        recent = connection.bad_requests
        if recent is None:
            recent = connection.bad_requests = deque(maxlen=BAD_REQUESTS)
        recent.append(now)
        if len(recent) == BAD_REQUESTS and now - recent[0] <= BAD_REQUESTS_WITHIN_S:
            connection.close(closing.BAD_REQUESTS, f"{BAD_REQUESTS} bad requests: fix the program")


def _asked(request: protocol.Request) -> tuple[Action, ...]:
    """A join may ask for more than to be in the room. Resuming is joining: the messages were there for the member."""
    actions = _ASKED.get(type(request), ())
    if type(request) is protocol.Join:
        if request.presence:
            actions += ("presence",)
        if request.history:
            actions += ("history",)
    return actions
