"""What a client may send (docs/protocol.md, "Client → server"): bytes in, a request or a documented error out. Pure.

``parse`` reads JSON text frames, ``parse_packed`` msgpack. Both raise :class:`BadRequest` for everything that is wrong
and nothing else, but for :class:`NotUtf8`. Optional fields that are null count as absent; unknown fields are ignored.

Requests are slotted dataclasses: named tuples of two kinds may be equal, and take 0.26 µs to make instead of 0.16.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import orjson

from server import jsontext
from server.packed import unpack

MAX_OFFSET: Final = 2**53 - 1
MAX_INTEGER: Final = 2**53
"""Of request and user ids, in both directions: beyond it JavaScript's numbers are no longer exact."""
MAX_ID_CHARS: Final = 64
MAX_MESSAGE_ID_CHARS: Final = 128
MAX_NAME_CHARS: Final = 128
MAX_HISTORY: Final = 500
STATUSES: Final = ("delivered", "read")

ROOM_RULE: Final = "1-128 characters of A-Z a-z 0-9 _ . : @ / -, not beginning with __"
USER_RULE: Final = "an integer within 2^53, or 1-128 characters of A-Z a-z 0-9 _ . : @ / - | + not beginning with __"

_room = re.compile(r"(?!__)[A-Za-z0-9_.:@/-]{1,128}").fullmatch
_user = re.compile(r"(?!__)[A-Za-z0-9_.:@/|+-]{1,128}").fullmatch
_digits = re.compile(r"0|[1-9][0-9]{0,15}").fullmatch
_session = re.compile(r"[A-Za-z0-9_-]{16,64}").fullmatch
_key = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


class Limits(NamedTuple):
    """``max_message_bytes`` bounds ``data`` once it is re-encoded; the frame itself was bounded before it was read."""

    max_message_bytes: int = 65536


RequestId = int | str | None
UserId = int | str


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


class Resume(NamedTuple):
    """Where the client was. Nothing in it is trusted: an offset outside 0 … ``MAX_OFFSET`` is no error, it is a resume
    that cannot recover."""

    epoch: str
    offset: int
    tag: str


@dataclass(slots=True)
class Join:
    id: RequestId
    room: str
    resume: Resume | None = None
    presence: bool = False
    history: int = 0
    op: ClassVar[str] = "join"


@dataclass(slots=True)
class Leave:
    id: RequestId
    room: str
    op: ClassVar[str] = "leave"


@dataclass(slots=True)
class Message:
    """``data`` is checked JSON text."""

    id: RequestId
    room: str
    data: bytes
    key: str | None = None
    echo: bool = True
    op: ClassVar[str] = "message"


@dataclass(slots=True)
class Broadcast:
    id: RequestId
    data: bytes
    op: ClassVar[str] = "broadcast"


@dataclass(slots=True)
class Typing:
    id: RequestId
    room: str
    typing: bool
    op: ClassVar[str] = "typing"


@dataclass(slots=True)
class Receipt:
    id: RequestId
    room: str
    message_id: int | str
    status: str
    op: ClassVar[str] = "receipt"


@dataclass(slots=True)
class GetPresence:
    """``after``: the last user of the page before."""

    id: RequestId
    room: str | None = None
    after: UserId | None = None
    op: ClassVar[str] = "get_presence"


@dataclass(slots=True)
class HistoryRequest:
    id: RequestId
    room: str
    limit: int
    before: int | None = None
    op: ClassVar[str] = "history"


@dataclass(slots=True)
class Auth:
    id: RequestId
    token: str
    op: ClassVar[str] = "auth"


@dataclass(slots=True)
class Ping:
    id: RequestId
    op: ClassVar[str] = "ping"


Request = Join | Leave | Message | Broadcast | Typing | Receipt | GetPresence | HistoryRequest | Auth | Ping


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


# Names and values.


def room_is_valid(room: object) -> bool:
    return type(room) is str and _room(room) is not None


def user_id_is_valid(user: object) -> bool:
    """Takes an id as it stands in a token: 42 and "42" are both valid, and two users."""
    if type(user) is int:
        return -MAX_INTEGER <= user <= MAX_INTEGER
    return type(user) is str and _user(user) is not None


def parse_user_id(text: str) -> UserId:
    """A user id from a place that knows only text (``?user=``, the command line): digits without a leading zero, up to
    2^53, are the integer. Raises ValueError."""
    if _digits(text) and int(text) <= MAX_INTEGER:
        return int(text)
    if _user(text):
        return text
    raise ValueError(f"not a user id: it must be {USER_RULE}")


def session_is_valid(session: str) -> bool:
    """Whether it may be a session key that some node gave out."""
    return _session(session) is not None


# From fields to requests.


class _Refused(Exception):
    def __init__(self, message: str, code: str = "bad_request") -> None:
        self.code = code
        self.message = message


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
        build = _OPS[fields["op"]]
    except (KeyError, TypeError):
        raise NotAnOperation("bad_request", _UNKNOWN_OP, id, _echoed_room(fields)) from None
    try:
        return build(fields, id, limits, source)
    except _Refused as error:
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
    return op if type(op) is str and op in _OPS else None


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


def _is_offset(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_OFFSET


def _room_of(fields: dict[str, Any]) -> str:
    room = fields.get("room")
    if type(room) is str and _room(room):
        return room
    if room is None:
        raise _Refused("room is missing")
    raise _Refused(f"a room is {ROOM_RULE}", "invalid_room")


def _bool_of(fields: dict[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise _Refused(f"{name} must be true or false")
    return value


def _data_of(fields: dict[str, Any], limits: Limits, source: bytes | None) -> bytes:
    try:
        data = jsontext.encode(fields["data"], source)
    except KeyError:
        raise _Refused("data is missing: send null if there is none") from None
    except ValueError as error:
        raise _Refused(f"data: {error}") from None
    if len(data) > limits.max_message_bytes:
        raise _Refused(f"data takes {len(data)} bytes of at most {limits.max_message_bytes}", "too_large")
    return data


def _join(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Join:
    room = _room_of(fields)
    resume = _resume_of(fields)
    presence = _bool_of(fields, "presence", False)
    history = fields.get("history")
    if history is None:
        history = 0
    elif not (type(history) is int and 0 <= history <= MAX_HISTORY):
        raise _Refused(f"history must be an integer in 0 ... {MAX_HISTORY}")
    if id is None and (resume is not None or presence or history):
        raise _Refused("resume, presence and history are answered in the reply: add an id")
    return Join(id, room, resume, presence, history)


def _resume_of(fields: dict[str, Any]) -> Resume | None:
    resume = fields.get("resume")
    if resume is None:
        return None
    if type(resume) is dict:
        epoch, offset, tag = resume.get("epoch"), resume.get("offset"), resume.get("tag")
        if type(offset) is float and offset.is_integer() and abs(offset) > MAX_OFFSET:
            offset = int(offset)  # an integer of more than 64 bits, made a float by orjson
        if type(epoch) is str and type(offset) is int and type(tag) is str:
            return Resume(epoch, offset, tag)
    raise _Refused('resume must be {"epoch": string, "offset": integer, "tag": string}, as a reply or reset gave it')


def _leave(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Leave:
    return Leave(id, _room_of(fields))


def _message(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Message:
    room = _room_of(fields)
    data = _data_of(fields, limits, source)
    key = fields.get("key")
    if key is not None and not (type(key) is str and _key(key)):
        raise _Refused("key must be 1-64 characters of A-Z a-z 0-9 _ -")
    return Message(id, room, data, key, _bool_of(fields, "echo", True))


def _broadcast(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Broadcast:
    return Broadcast(id, _data_of(fields, limits, source))


def _typing(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Typing:
    room = _room_of(fields)
    typing = fields.get("typing")
    if type(typing) is not bool:
        raise _Refused("typing must be true or false")
    return Typing(id, room, typing)


def _receipt(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Receipt:
    room = _room_of(fields)
    message_id: Any = fields.get("message_id")
    status = fields.get("status")
    if not (_is_offset(message_id, 0) or (type(message_id) is str and 0 < len(message_id) <= MAX_MESSAGE_ID_CHARS)):
        raise _Refused(
            f"message_id must be an integer in 0 ... 2^53-1 or a string of 1-{MAX_MESSAGE_ID_CHARS} characters"
        )
    if status not in STATUSES:
        raise _Refused(f"status must be one of {', '.join(STATUSES)}")
    return Receipt(id, room, message_id, status)


def _get_presence(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> GetPresence:
    room = _room_of(fields) if fields.get("room") is not None else None
    after = fields.get("after")
    if after is not None and not user_id_is_valid(after):
        raise _Refused("after must be the `next` of the page before")
    return GetPresence(id, room, after)


def _history(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> HistoryRequest:
    room = _room_of(fields)
    limit, before = fields.get("limit"), fields.get("before")
    if not (type(limit) is int and 1 <= limit <= MAX_HISTORY):
        raise _Refused(f"limit must be an integer in 1 ... {MAX_HISTORY}")
    if before is not None and not _is_offset(before, 1):
        raise _Refused("before must be an offset in 1 ... 2^53-1")
    return HistoryRequest(id, room, limit, before)


def _auth(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Auth:
    token = fields.get("token")
    if type(token) is not str or not token:
        raise _Refused("token must be a string: send the new token")
    return Auth(id, token)


def _ping(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Ping:
    return Ping(id)


_Build = Callable[[dict[str, Any], RequestId, Limits, "bytes | None"], Request]
_OPS: Final[dict[str, _Build]] = {
    Join.op: _join,
    Leave.op: _leave,
    Message.op: _message,
    Broadcast.op: _broadcast,
    Typing.op: _typing,
    Receipt.op: _receipt,
    GetPresence.op: _get_presence,
    HistoryRequest.op: _history,
    Auth.op: _auth,
    Ping.op: _ping,
}
_UNKNOWN_OP: Final = f"op must be one of {', '.join(_OPS)}"
