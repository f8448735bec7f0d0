"""From the fields of a request to the request, one function per op. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from server import jsontext
from server.names import (
    MAX_HISTORY,
    MAX_MESSAGE_ID_CHARS,
    MAX_OFFSET,
    ROOM_RULE,
    STATUSES,
    key_is_valid,
    room_is_valid,
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


class Limits(NamedTuple):
    """``max_message_bytes`` bounds ``data`` once it is re-encoded; the frame itself was bounded before it was read."""

    max_message_bytes: int = 65536


class Refused(Exception):
    """What is wrong with the fields."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        self.code = code
        self.message = message


def _is_offset(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_OFFSET


def _room_of(fields: dict[str, Any]) -> str:
    room = fields.get("room")
    if type(room) is str and room_is_valid(room):
        return room
    if room is None:
        raise Refused("room is missing")
    raise Refused(f"a room is {ROOM_RULE}", "invalid_room")


def _bool_of(fields: dict[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise Refused(f"{name} must be true or false")
    return value


def _data_of(fields: dict[str, Any], limits: Limits, source: bytes | None) -> bytes:
    try:
        data = jsontext.encode(fields["data"], source)
    except KeyError:
        raise Refused("data is missing: send null if there is none") from None
    except ValueError as error:
        raise Refused(f"data: {error}") from None
    if len(data) > limits.max_message_bytes:
        raise Refused(f"data takes {len(data)} bytes of at most {limits.max_message_bytes}", "too_large")
    return data


def _join(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Join:
    room = _room_of(fields)
    resume = _resume_of(fields)
    presence = _bool_of(fields, "presence", False)
    history = fields.get("history")
    if history is None:
        history = 0
    elif not (type(history) is int and 0 <= history <= MAX_HISTORY):
        raise Refused(f"history must be an integer in 0 ... {MAX_HISTORY}")
    if id is None and (resume is not None or presence or history):
        raise Refused("resume, presence and history are answered in the reply: add an id")
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
    raise Refused('resume must be {"epoch": string, "offset": integer, "tag": string}, as a reply or reset gave it')


def _leave(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Leave:
    return Leave(id, _room_of(fields))


def _message(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Message:
    room = _room_of(fields)
    data = _data_of(fields, limits, source)
    key = fields.get("key")
    if key is not None and not key_is_valid(key):
        raise Refused("key must be 1-64 characters of A-Z a-z 0-9 _ -")
    return Message(id, room, data, key, _bool_of(fields, "echo", True))


def _broadcast(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Broadcast:
    return Broadcast(id, _data_of(fields, limits, source))


def _typing(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Typing:
    room = _room_of(fields)
    typing = fields.get("typing")
    if type(typing) is not bool:
        raise Refused("typing must be true or false")
    return Typing(id, room, typing)


def _receipt(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Receipt:
    room = _room_of(fields)
    message_id: Any = fields.get("message_id")
    status = fields.get("status")
    if not (_is_offset(message_id, 0) or (type(message_id) is str and 0 < len(message_id) <= MAX_MESSAGE_ID_CHARS)):
        raise Refused(
            f"message_id must be an integer in 0 ... 2^53-1 or a string of 1-{MAX_MESSAGE_ID_CHARS} characters"
        )
    if status not in STATUSES:
        raise Refused(f"status must be one of {', '.join(STATUSES)}")
    return Receipt(id, room, message_id, status)


def _get_presence(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> GetPresence:
    room = _room_of(fields) if fields.get("room") is not None else None
    after = fields.get("after")
    if after is not None and not user_id_is_valid(after):
        raise Refused("after must be the `next` of the page before")
    return GetPresence(id, room, after)


def _history(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> HistoryRequest:
    room = _room_of(fields)
    limit, before = fields.get("limit"), fields.get("before")
    if not (type(limit) is int and 1 <= limit <= MAX_HISTORY):
        raise Refused(f"limit must be an integer in 1 ... {MAX_HISTORY}")
    if before is not None and not _is_offset(before, 1):
        raise Refused("before must be an offset in 1 ... 2^53-1")
    return HistoryRequest(id, room, limit, before)


def _auth(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Auth:
    token = fields.get("token")
    if type(token) is not str or not token:
        raise Refused("token must be a string: send the new token")
    return Auth(id, token)


def _ping(fields: dict[str, Any], id: RequestId, limits: Limits, source: bytes | None) -> Ping:
    return Ping(id)


Build = Callable[[dict[str, Any], RequestId, Limits, "bytes | None"], Request]
OPS: Final[dict[str, Build]] = {
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
