"""Server frames, one encoder per kind, as JSON text (docs/protocol.md, "Server → client"). Pure.

User ids come as JSON text (``42`` or ``"42"``), so that they are spliced in and stay what they are. The two events of
the hot path are spliced whole: the publishing node makes the tail once, every receiving node puts room, offset and tag
in front of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

VERSION = 1


def _text(value: object) -> bytes:
    return orjson.dumps(value)


def welcome(*, session: str, node: str, user: str | None, ping_s: float, max_message: int) -> bytes:
    return _text(
        {
            "op": "welcome",
            "version": VERSION,
            "session": session,
            "node": node,
            "user_id": orjson.Fragment(user or "null"),
            "ping": int(ping_s) if ping_s == int(ping_s) else ping_s,
            "max_message": max_message,
        }
    )


def reply_ok(id: int | str, fields: Mapping[str, object]) -> bytes:
    return _text({"op": "reply", "id": id, "ok": True, **fields})


def reply_error(id: int | str, code: str, message: str) -> bytes:
    return _text({"op": "reply", "id": id, "ok": False, "code": code, "message": message})


def error(room: str | None, code: str, message: str) -> bytes:
    fields: dict[str, object] = {"op": "broadcast", "type": "error"}
    if room is not None:
        fields["room"] = room
    return _text({**fields, "message": message, "code": code})


def message_head(room: str) -> bytes:
    return b'{"op":"broadcast","type":"message","room":%b,"offset":' % _text(room)


def message_tail(user: str, ts: float, data: bytes) -> bytes:
    """``user`` is JSON text or ``null``, ``ts`` Unix time in seconds, ``data`` checked JSON text."""
    return b'"user_id":%b,"ts":%.3f,"data":%b}' % (user.encode(), ts, data)


def message_frame(head: bytes, offset: int, tag: bytes, tail: bytes) -> bytes:
    return b'%b%d,"tag":"%b",%b' % (head, offset, tag, tail)


def position(room: str, offset: int, tag: bytes) -> bytes:
    return b'{"op":"broadcast","type":"position","room":%b,"offset":%d,"tag":"%b"}' % (_text(room), offset, tag)


def path_broadcast(path: str, user: str | None, data: bytes) -> bytes:
    user_id = (user or "null").encode()
    return b'{"op":"broadcast","type":"broadcast","path":%b,"user_id":%b,"data":%b}' % (_text(path), user_id, data)


def direct(data: bytes) -> bytes:
    return b'{"op":"broadcast","type":"direct","data":%b}' % data


def presence(user: str, online: bool, room: str | None = None) -> bytes:
    where = b'"room":%b,' % _text(room) if room is not None else b""
    status = b"online" if online else b"offline"
    return b'{"op":"broadcast","type":"presence",%b"user_id":%b,"status":"%b"}' % (where, user.encode(), status)


def presence_list(
    users: Iterable[str], room: str | None = None, count: int | None = None, next_user: str | None = None
) -> bytes:
    """``next_user`` (JSON text) is where the next page begins, for ``after``."""
    fields: dict[str, object] = {
        "op": "broadcast",
        "type": "presence_list",
        "users": [orjson.Fragment(user) for user in users],
    }
    if room is not None:
        fields["room"] = room
    if count is not None:
        fields["count"] = count
    if next_user is not None:
        fields["next"] = orjson.Fragment(next_user)
    return _text(fields)


def typing(room: str, user: str, is_typing: bool) -> bytes:
    state = b"true" if is_typing else b"false"
    return b'{"op":"broadcast","type":"typing","room":%b,"user_id":%b,"typing":%b}' % (
        _text(room),
        user.encode(),
        state,
    )


def receipt(room: str, message_id: int | str, user: str, status: str) -> bytes:
    return b'{"op":"broadcast","type":"receipt","room":%b,"message_id":%b,"user_id":%b,"status":%b}' % (
        _text(room),
        _text(message_id),
        user.encode(),
        _text(status),
    )


def reset(room: str, epoch: bytes, offset: int, tag: bytes) -> bytes:
    return b'{"op":"broadcast","type":"reset","room":%b,"epoch":"%b","offset":%d,"tag":"%b"}' % (
        _text(room),
        epoch,
        offset,
        tag,
    )


def joined(room: str, epoch: bytes, offset: int, tag: bytes) -> bytes:
    """The application has put the connection into the room: it is live there after this position."""
    return b'{"op":"broadcast","type":"joined","room":%b,"epoch":"%b","offset":%d,"tag":"%b"}' % (
        _text(room),
        epoch,
        offset,
        tag,
    )


def left(room: str) -> bytes:
    """The application has taken the connection out of the room."""
    return b'{"op":"broadcast","type":"left","room":%b}' % _text(room)


def degraded(since: float) -> bytes:
    return b'{"op":"degraded","since":%.3f}' % since


def restored() -> bytes:
    return b'{"op":"restored"}'


def drain(retry_after_ms: int) -> bytes:
    return b'{"op":"drain","retry_after_ms":%d}' % retry_after_ms


def backoff(retry_after_s: float) -> bytes:
    return b'{"op":"backoff","retry_after_ms":%d}' % (retry_after_s * 1000)


def auth_expiring(in_s: int) -> bytes:
    return b'{"op":"auth_expiring","in_s":%d}' % in_s


def pong(id: int | str | None) -> bytes:
    return b'{"op":"pong"}' if id is None else b'{"op":"pong","id":%b}' % _text(id)
