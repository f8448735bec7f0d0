"""What a client sends (docs/protocol.md, "Client → server"): bytes in, a request or a documented error out. Pure.

``parse`` reads JSON text frames, ``parse_packed`` msgpack. Both raise :class:`BadRequest` for everything that is wrong
and nothing else, but for :class:`NotUtf8`. Optional fields that are null count as absent; unknown fields are ignored.
The requests themselves (server/ops.py) and the rules for names (server/names.py) are to be had here, too.
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from server.building import OPS, Limits, Refused
from server.names import (
    MAX_HISTORY,
    MAX_ID_CHARS,
    MAX_INTEGER,
    MAX_NAME_CHARS,
    MAX_OFFSET,
    ROOM_RULE,
    USER_RULE,
    UserId,
    parse_user_id,
    room_is_valid,
    session_is_valid,
    user_id_is_valid,
)
from server.ops import (
    Auth,
    Broadcast,
    GetPresence,
    HistoryRequest,
    Join,
    Leave,
    Message,
    Ping,
    Receipt,
    Request,
    RequestId,
    Resume,
    Typing,
)
from server.packed import unpack

__all__ = [
    "MAX_HISTORY",
    "MAX_INTEGER",
    "MAX_OFFSET",
    "ROOM_RULE",
    "USER_RULE",
    "Auth",
    "BadRequest",
    "Broadcast",
    "GetPresence",
    "HistoryRequest",
    "Join",
    "Leave",
    "Limits",
    "Message",
    "NotAnOperation",
    "NotUtf8",
    "Ping",
    "Receipt",
    "Request",
    "RequestId",
    "Resume",
    "Typing",
    "UserId",
    "parse",
    "parse_packed",
    "parse_user_id",
    "room_is_valid",
    "session_is_valid",
    "user_id_is_valid",
]


class BadRequest(Exception):
    """The request cannot be served. ``id``, ``room`` and ``op`` are what could be read of it; ``code`` is an error code
    of the protocol, ``message`` says what to do."""

    def __init__(
        self, code: str, message: str, id: RequestId = None, room: str | None = None, op: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id
        self.room = room
        self.op = op


class NotAnOperation(BadRequest):
    """Not an object with a known ``op``. On protocol endpoints such text belongs to the application's handler."""


class NotUtf8(Exception):
    """A text frame that is not UTF-8: the connection closes with 1007 (RFC 6455 §8.1)."""


def parse(data: bytes, limits: Limits) -> Request:
    """Read a text frame. Raises :class:`BadRequest`, :class:`NotAnOperation` or :class:`NotUtf8`."""
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _unreadable(data, error) from None
    return _request(fields, limits, data)


def parse_packed(data: bytes, limits: Limits) -> Request:
    """Read a binary frame of a msgpack connection. Raises :class:`BadRequest` or :class:`NotAnOperation`."""
    try:
        fields = unpack(data)
    except ValueError as error:
        raise NotAnOperation("bad_request", str(error)) from None
    return _request(fields, limits, None)


# From fields to requests.


def _request(fields: Any, limits: Limits, source: bytes | None) -> Request:
    """``source`` is the JSON text the fields were read from; None for msgpack."""
    if type(fields) is not dict:
        raise NotAnOperation("bad_request", "a request is an object with an op")
    id = fields.get("id")
    if id is not None and not _id_is_valid(id):
        op = _known_op(fields)
        kind = NotAnOperation if op is None else BadRequest
        message = f"id must be an integer within 2^53 or a string of at most {MAX_ID_CHARS} characters"
        raise kind("bad_request", message, None, _echoed_room(fields), op)
    try:
        build = OPS[fields["op"]]
    except (KeyError, TypeError):
        raise NotAnOperation("bad_request", _UNKNOWN_OP, id, _echoed_room(fields)) from None
    try:
        return build(fields, id, limits, source)
    except Refused as error:
        raise BadRequest(error.code, error.message, id, _echoed_room(fields), fields["op"]) from None


def _unreadable(data: bytes, error: orjson.JSONDecodeError) -> BadRequest | NotUtf8:
    """Say what is wrong with text that orjson refuses. A request that a laxer reader can make out (NaN, 1e999, a lone
    surrogate in its data) is answered as one: with its id, and not taken for text of the application's."""
    try:
        text = data.decode()
    except UnicodeDecodeError as undecodable:
        return NotUtf8(f"invalid UTF-8 at byte {undecodable.start}")
    message = f"not JSON: {error}"
    try:
        fields = json.loads(text, parse_int=_lax_integer)
    except (ValueError, RecursionError):
        return NotAnOperation("bad_request", message)
    op = _known_op(fields) if type(fields) is dict else None
    if op is None:
        return NotAnOperation("bad_request", message)
    id = fields.get("id")
    return BadRequest("bad_request", message, id if _id_is_valid(id) else None, _echoed_room(fields), op)


def _lax_integer(digits: str) -> int | None:
    return int(digits) if len(digits) < 20 else None  # int() itself refuses more than 4,300 digits


def _known_op(fields: dict[str, Any]) -> str | None:
    op = fields.get("op")
    return op if type(op) is str and op in OPS else None


def _id_is_valid(id: object) -> bool:
    if type(id) is int:
        return -MAX_INTEGER <= id <= MAX_INTEGER
    return type(id) is str and len(id) <= MAX_ID_CHARS and _is_text(id)


def _echoed_room(fields: dict[str, Any]) -> str | None:
    """The room an error may name: as the client wrote it, if that is text and not longer than a name."""
    room = fields.get("room")
    return room if type(room) is str and len(room) <= MAX_NAME_CHARS and _is_text(room) else None


def _is_text(value: str) -> bool:
    """Whether it has no lone surrogate (only the laxer reader lets one through)."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


_UNKNOWN_OP: Final = f"op must be one of {', '.join(OPS)}"
