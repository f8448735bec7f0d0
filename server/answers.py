"""The answers to requests: one reply for each that carries an id, an error event for those that cannot be told so."""

from __future__ import annotations

from broker.base import BrokerError, OutcomeUnknown
from server import events, protocol
from server.connection import Connection
from server.metrics import Counts


class Answers:
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def ok(self, connection: Connection, request: protocol.Request, fields: dict[str, object] | None = None) -> None:
        if request.id is not None:
            connection.send_event(events.reply_ok(request.id, fields or {}))

    def refuse(self, connection: Connection, request: protocol.Request, code: str, message: str) -> None:
        room = getattr(request, "room", None)
        self.error(connection, request.id, isinstance(request, protocol.Join), room, code, message)

    def failed(self, connection: Connection, request: protocol.Request, error: BrokerError) -> None:
        """The broker could not carry it out, or did not say whether it has."""
        self.refuse(connection, request, "timeout" if isinstance(error, OutcomeUnknown) else "unavailable", str(error))

    def error(
        self, connection: Connection, id: int | str | None, join: bool, room: str | None, code: str, message: str
    ) -> None:
        self._counts.errors += 1
        if join or id is None:
            connection.send_event(events.error(room, code, message))
        if id is not None:
            connection.send_event(events.reply_error(id, code, message))
