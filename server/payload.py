"""What nodes say to each other inside the broker's payloads. Pure.

A message (an entry of a room's log) is ``n`` (one byte), the ``n`` bytes of the session that must not get it back
(``echo: false``), then the tail of the client frame, encoded once by the publishing node::

    00 "user_id":42,"ts":1732147200.123,"data":{"text":"hi"}}

so that a receiving node only puts the room, the offset and the tag in front (server/events.py, ``message_frame``).
Everything else is a signal: one small msgpack array whose first item says what it is.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack


def encode_message(tail: bytes, excluded_session: str = "") -> bytes:
    """``excluded_session`` is at most 255 bytes (sessions are 22 characters)."""
    if not excluded_session:
        return b"\x00" + tail
    session = excluded_session.encode()
    return bytes((len(session),)) + session + tail


def decode_message(payload: bytes) -> tuple[bytes, bytes]:
    """``(excluded session or b"", tail)``. Raises ValueError for bytes that are not a message."""
    if not payload or len(payload) <= payload[0] + 1:
        raise ValueError("not a message payload")
    n = payload[0] + 1
    return payload[1:n], payload[n:]


def author_of(tail: bytes) -> str | None:
    """The user who published a message, as JSON text; None is the application or somebody anonymous."""
    user = tail[len(b'"user_id":') : tail.index(b',"ts":')]
    return None if user == b"null" else user.decode()


class Origin(NamedTuple):
    """The connection that caused a signal, so that it alone is left out."""

    node: str
    connection: int


class TypingSignal(NamedTuple):
    user: str
    typing: bool
    origin: Origin


class ReceiptSignal(NamedTuple):
    user: str
    message_id: int | str
    status: str
    origin: Origin


class BroadcastSignal(NamedTuple):
    """To all connections of a path. ``/ws`` gets a ``broadcast`` event; what the application sends (``form`` "text": as
    it stands, "json": JSON text) reaches handler paths as given, what a client sends ("event") as an event as well."""

    user: str | None
    data: bytes
    form: str
    origin: Origin | None


class DirectSignal(NamedTuple):
    """To all connections of one user. ``data`` is JSON text."""

    data: bytes


class DisconnectSignal(NamedTuple):
    """Close connections: of a user (on its channel) or of all (on ``CONTROL``) those that match what is given."""

    code: int
    reason: str
    session: str | None
    token_id: str | None


class RecheckSignal(NamedTuple):
    """Ask again whether connections may be in their rooms: of a user (on its channel) or of all (on ``CONTROL``)."""

    room: str | None
    """Only in rooms that match this pattern."""


class MembershipSignal(NamedTuple):
    """Put a user's connections into a room, or take them out of it, because the application says so."""

    room: str
    member: bool


class CensusSignal(NamedTuple):
    """To all nodes: tell ``reply_to`` (a channel) the first ``limit`` rooms after ``after`` that match ``pattern`` and
    have members on you."""

    query: str
    reply_to: str
    after: str
    pattern: str
    limit: int


class CensusAnswer(NamedTuple):
    query: str
    node: str
    rooms: tuple[tuple[str, int], ...]
    """Sorted, with the number of connections."""


class ForgetSignal(NamedTuple):
    """To all nodes: nothing is kept about this user any more, so drop what you remember."""

    user: str


class WatchSignal(NamedTuple):
    """To all nodes: tell ``reply_to`` (a channel) how you are, once a second for so many seconds."""

    reply_to: str
    for_s: int


class SampleSignal(NamedTuple):
    """How one node is. ``sample`` is JSON text (server/vitals.py)."""

    node: str
    sample: bytes


CONTROL = "path:.control"
"""The channel that every node hears. No request has this path: they begin with a slash."""

AnySignal = (
    TypingSignal
    | ReceiptSignal
    | BroadcastSignal
    | DirectSignal
    | DisconnectSignal
    | RecheckSignal
    | MembershipSignal
    | CensusSignal
    | CensusAnswer
    | ForgetSignal
    | WatchSignal
    | SampleSignal
)

_TYPES: tuple[type[AnySignal], ...] = (
    TypingSignal,
    ReceiptSignal,
    BroadcastSignal,
    DirectSignal,
    DisconnectSignal,
    RecheckSignal,
    MembershipSignal,
    CensusSignal,
    CensusAnswer,
    ForgetSignal,
    WatchSignal,
    SampleSignal,
)
_CODES = {cls: code for code, cls in enumerate(_TYPES)}
_FIELD_TYPES: dict[type[AnySignal], tuple[tuple[type, ...], ...]] = {
    TypingSignal: ((str,), (bool,), (tuple,)),
    ReceiptSignal: ((str,), (int, str), (str,), (tuple,)),
    BroadcastSignal: ((str, type(None)), (bytes,), (str,), (tuple, type(None))),
    DirectSignal: ((bytes,),),
    DisconnectSignal: ((int,), (str,), (str, type(None)), (str, type(None))),
    RecheckSignal: ((str, type(None)),),
    MembershipSignal: ((str,), (bool,)),
    CensusSignal: ((str,), (str,), (str,), (str,), (int,)),
    CensusAnswer: ((str,), (str,), (tuple,)),
    ForgetSignal: ((str,),),
    WatchSignal: ((str,), (int,)),
    SampleSignal: ((str,), (bytes,)),
}


def encode_signal(signal: AnySignal) -> bytes:
    return bytes(msgpack.packb((_CODES[type(signal)], *signal)))


def decode_signal(payload: bytes) -> AnySignal:
    """Raises ValueError for anything :func:`encode_signal` did not write."""
    try:
        code, *fields = msgpack.unpackb(payload, use_list=False, max_map_len=0, max_ext_len=0)
        cls = _TYPES[code]
        kinds = _FIELD_TYPES[cls]
        if len(fields) != len(kinds) or not all(isinstance(f, k) for f, k in zip(fields, kinds, strict=True)):
            raise ValueError("wrong fields")
        if "origin" in cls._fields and fields[-1] is not None:
            node, connection = fields[-1]
            if not (isinstance(node, str) and isinstance(connection, int)):
                raise ValueError("wrong origin")
            fields[-1] = Origin(node, connection)
        if cls is CensusAnswer and not all(map(_is_count, fields[-1])):
            raise ValueError("wrong rooms")
        signal: AnySignal = cls(*fields)
        return signal
    except Exception as error:  # msgpack raises a dozen unrelated types on hostile bytes
        raise ValueError("not a signal") from error


def _is_count(pair: object) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int)
