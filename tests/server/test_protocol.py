"""What clients may send: the same table in both encodings, and that nothing but the documented errors comes out."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server import protocol
from server.protocol import (
    Auth,
    BadRequest,
    Broadcast,
    GetPresence,
    HistoryRequest,
    Join,
    Leave,
    Limits,
    Message,
    NotAnOperation,
    NotUtf8,
    Ping,
    Receipt,
    Request,
    Resume,
    Typing,
)

LIMITS = Limits()

REQUESTS: list[tuple[bytes, Request]] = [
    (b'{"op":"join","room":"r"}', Join(None, "r")),
    (b'{"op":"join","id":1,"room":"r"}', Join(1, "r")),
    (
        b'{"op":"join","id":1,"room":"r","resume":{"epoch":"e","offset":58,"tag":"t"},"presence":true,"history":500}',
        Join(1, "r", Resume("e", 58, "t"), True, 500),
    ),
    (b'{"op":"join","room":"r","resume":null,"presence":false,"history":0}', Join(None, "r")),
    (
        b'{"op":"join","id":1,"room":"r","resume":{"epoch":"","offset":-1,"tag":""}}',
        Join(1, "r", Resume("", -1, "")),
    ),
    (
        b'{"op":"join","id":1,"room":"r","resume":{"epoch":"e","offset":9007199254740992,"tag":"t"}}',
        Join(1, "r", Resume("e", 2**53, "t")),
    ),
    (
        b'{"op":"join","id":1,"room":"r","resume":{"epoch":"e","offset":1e30,"tag":"t"}}',
        Join(1, "r", Resume("e", int(1e30), "t")),
    ),
    (b'{"op":"leave","id":"a","room":"admin:secrets"}', Leave("a", "admin:secrets")),
    (b'{"op":"message","room":"r","data":null}', Message(None, "r", b"null")),
    (b'{"op":"message","id":0,"room":"r","data":{"text":"hi"}}', Message(0, "r", b'{"text":"hi"}')),
    (
        b'{"op":"message","id":7,"room":"r","data":[1,2.5],"key":"aZ09_-","echo":false}',
        Message(7, "r", b"[1,2.5]", "aZ09_-", False),
    ),
    (b'{"op":"message","room":"r","data":"x","key":null,"echo":null,"extra":[]}', Message(None, "r", b'"x"')),
    (b'{"op":"broadcast","data":"hello"}', Broadcast(None, b'"hello"')),
    (b'{"op":"typing","room":"chat-room","typing":true}', Typing(None, "chat-room", True)),
    (
        b'{"op":"receipt","room":"chat-room","message_id":123,"status":"read"}',
        Receipt(None, "chat-room", 123, "read"),
    ),
    (b'{"op":"receipt","room":"r","message_id":"m-1","status":"delivered"}', Receipt(None, "r", "m-1", "delivered")),
    (b'{"op":"get_presence"}', GetPresence(None)),
    (b'{"op":"get_presence","id":3,"room":"r","after":42}', GetPresence(3, "r", 42)),
    (b'{"op":"get_presence","id":3,"room":"r","after":"42"}', GetPresence(3, "r", "42")),
    (b'{"op":"history","id":3,"room":"r","limit":500}', HistoryRequest(3, "r", 500)),
    (b'{"op":"history","id":3,"room":"r","limit":1,"before":58}', HistoryRequest(3, "r", 1, 58)),
    (b'{"op":"auth","id":4,"token":"a.b.c"}', Auth(4, "a.b.c")),
    (b'{"op":"ping"}', Ping(None)),
    (b'{"op":"ping","id":9007199254740992}', Ping(2**53)),
    (b'{"op":"ping","id":-9007199254740992}', Ping(-(2**53))),
    (b' {"id" : "' + b"i" * 64 + b'" , "op":"p\\u0069ng"} ', Ping("i" * 64)),
]


@pytest.mark.parametrize(("data", "request_"), REQUESTS)
def test_json_requests(data: bytes, request_: Request) -> None:
    assert protocol.parse(data, LIMITS) == request_


@pytest.mark.parametrize(("data", "request_"), REQUESTS)
def test_the_same_as_msgpack(data: bytes, request_: Request) -> None:
    assert protocol.parse_packed(msgpack.packb(orjson.loads(data)), LIMITS) == request_


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (b"\x81\xa2op\xa4ping", Ping(None)),
        (b"\x82\xa2op\xa4ping\xa2id\xd9\x02ab", Ping("ab")),
        (b"\x83\xa2op\xa6typing\xa4room\xa1r\xa6typing\xc3", Typing(None, "r", True)),
        (
            b"\x83\xa2op\xa7message\xa4room\xa1r\xa4data\x93\xff\xca\x3f\xc0\x00\x00\x81\xa1a\xc0",
            Message(None, "r", b'[-1,1.5,{"a":null}]'),
        ),
    ],
)
def test_msgpack_requests(data: bytes, request_: Request) -> None:
    assert protocol.parse_packed(data, LIMITS) == request_


def test_every_request_says_its_op() -> None:
    for data, request in REQUESTS:
        assert type(request).op == orjson.loads(data)["op"]


MESSAGE = b'{"op":"message","id":7,"room":"r","data":'
BAD: list[tuple[bytes, str, int | str | None, str | None, str]] = [
    (b'{"op":"join","id":1}', "bad_request", 1, None, "room is missing"),
    (b'{"op":"join","id":1,"room":""}', "invalid_room", 1, "", "1-128 characters"),
    (b'{"op":"join","room":"a room"}', "invalid_room", None, "a room", "1-128 characters"),
    (b'{"op":"join","room":"__x"}', "invalid_room", None, "__x", "not beginning with __"),
    (b'{"op":"join","room":"r\\n"}', "invalid_room", None, "r\n", "1-128 characters"),
    (b'{"op":"join","room":7}', "invalid_room", None, None, "1-128 characters"),
    (b'{"op":"join","room":"' + b"r" * 129 + b'"}', "invalid_room", None, None, "1-128 characters"),
    (b'{"op":"join","room":"r","presence":true}', "bad_request", None, "r", "add an id"),
    (b'{"op":"join","room":"r","history":1}', "bad_request", None, "r", "add an id"),
    (b'{"op":"join","id":1,"room":"r","presence":1}', "bad_request", 1, "r", "true or false"),
    (b'{"op":"join","id":1,"room":"r","history":501}', "bad_request", 1, "r", "0 ... 500"),
    (b'{"op":"join","id":1,"room":"r","history":-1}', "bad_request", 1, "r", "0 ... 500"),
    (b'{"op":"join","id":1,"room":"r","history":true}', "bad_request", 1, "r", "0 ... 500"),
    (b'{"op":"join","id":1,"room":"r","resume":58}', "bad_request", 1, "r", "resume must be"),
    (b'{"op":"join","id":1,"room":"r","resume":{"epoch":"e","offset":1}}', "bad_request", 1, "r", "resume must be"),
    (
        b'{"op":"join","id":1,"room":"r","resume":{"epoch":"e","offset":true,"tag":"t"}}',
        "bad_request",
        1,
        "r",
        "resume must be",
    ),
    (
        b'{"op":"join","id":1,"room":"r","resume":{"epoch":"e","offset":1.5,"tag":"t"}}',
        "bad_request",
        1,
        "r",
        "resume must be",
    ),
    (b'{"op":"leave","id":1,"room":null}', "bad_request", 1, None, "room is missing"),
    (b'{"op":"message","id":7,"room":"r"}', "bad_request", 7, "r", "data is missing"),
    (MESSAGE + b'1,"key":""}', "bad_request", 7, "r", "key must be"),
    (MESSAGE + b'1,"key":"' + b"k" * 65 + b'"}', "bad_request", 7, "r", "key must be"),
    (MESSAGE + b'1,"key":"a b"}', "bad_request", 7, "r", "key must be"),
    (MESSAGE + b'1,"key":1}', "bad_request", 7, "r", "key must be"),
    (MESSAGE + b'1,"echo":0}', "bad_request", 7, "r", "echo must be"),
    (MESSAGE + b"[" * 33 + b"]" * 33 + b"}", "bad_request", 7, "r", "32 levels"),
    (b'{"op":"typing","room":"r"}', "bad_request", None, "r", "typing must be"),
    (b'{"op":"typing","room":"r","typing":1}', "bad_request", None, "r", "typing must be"),
    (b'{"op":"receipt","room":"r","message_id":1,"status":"seen"}', "bad_request", None, "r", "delivered, read"),
    (b'{"op":"receipt","room":"r","message_id":1}', "bad_request", None, "r", "delivered, read"),
    (b'{"op":"receipt","room":"r","message_id":true,"status":"read"}', "bad_request", None, "r", "message_id must"),
    (b'{"op":"receipt","room":"r","message_id":1.0,"status":"read"}', "bad_request", None, "r", "message_id must"),
    (b'{"op":"receipt","room":"r","message_id":-1,"status":"read"}', "bad_request", None, "r", "message_id must"),
    (b'{"op":"receipt","room":"r","message_id":"","status":"read"}', "bad_request", None, "r", "message_id must"),
    (
        b'{"op":"receipt","room":"r","message_id":"' + b"m" * 129 + b'","status":"read"}',
        "bad_request",
        None,
        "r",
        "message_id must",
    ),
    (b'{"op":"get_presence","room":"__r"}', "invalid_room", None, "__r", "1-128 characters"),
    (b'{"op":"get_presence","after":"a b"}', "bad_request", None, None, "after must be"),
    (b'{"op":"history","id":1,"room":"r"}', "bad_request", 1, "r", "1 ... 500"),
    (b'{"op":"history","id":1,"room":"r","limit":0}', "bad_request", 1, "r", "1 ... 500"),
    (b'{"op":"history","id":1,"room":"r","limit":501}', "bad_request", 1, "r", "1 ... 500"),
    (b'{"op":"history","id":1,"room":"r","limit":5,"before":0}', "bad_request", 1, "r", "before must be"),
    (b'{"op":"auth","id":1}', "bad_request", 1, None, "token must be"),
    (b'{"op":"auth","id":1,"token":""}', "bad_request", 1, None, "token must be"),
    (b'{"op":"ping","id":true}', "bad_request", None, None, "id must be"),
    (b'{"op":"ping","id":1.0}', "bad_request", None, None, "id must be"),
    (b'{"op":"ping","id":9007199254740993}', "bad_request", None, None, "id must be"),
    (b'{"op":"ping","id":"' + b"i" * 65 + b'"}', "bad_request", None, None, "id must be"),
    (b'{"op":"leave","room":"r","id":[]}', "bad_request", None, "r", "id must be"),
]


def refused(error: BadRequest) -> tuple[str, int | str | None, str | None]:
    return error.code, error.id, error.room


@pytest.mark.parametrize(("data", "code", "id", "room", "text"), BAD)
def test_bad_requests_say_whose_they_are_and_what_to_do(
    data: bytes, code: str, id: int | str | None, room: str | None, text: str
) -> None:
    for parse, encoded in ((protocol.parse, data), (protocol.parse_packed, msgpack.packb(orjson.loads(data)))):
        with pytest.raises(BadRequest) as caught:
            parse(encoded, LIMITS)
        assert not isinstance(caught.value, NotAnOperation)
        assert refused(caught.value) == (code, id, room)
        assert caught.value.op == orjson.loads(data)["op"]
        assert text in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        b"1e999",
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b"1000000000000000000000000000000",
        b"-9223372036854775809",
        b"1" * 5000,
    ],
)
def test_data_that_cannot_be_relayed_exactly_is_refused_with_the_id(value: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        protocol.parse(MESSAGE + value + b"}", LIMITS)
    assert not isinstance(caught.value, NotAnOperation), "an application's handler must not see it"
    assert (*refused(caught.value), caught.value.op) == ("bad_request", 7, "r", "message")


def test_an_error_never_repeats_a_lone_surrogate() -> None:
    with pytest.raises(BadRequest) as caught:
        protocol.parse(b'{"op":"leave","id":"\\ud800","room":"\\udfff"}', LIMITS)
    assert refused(caught.value) == ("bad_request", None, None)


@pytest.mark.parametrize(
    "value",
    [
        b"\xc4\x00",  # bin
        b"\xc4\x01a",
        b"\xd4\x05a",  # ext
        b"\xd6\xff\x00\x00\x00\x00",  # timestamp
        b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",  # infinity
        b"\xca\x7f\xc0\x00\x00",  # NaN
        b"\x81\xc4\x01a\x01",  # a key of bytes
        b"\x91" * 33 + b"\xc0",
        b"\x91" * 300 + b"\xc0",
    ],
)
def test_msgpack_data_that_json_cannot_say_is_refused_with_the_id(value: bytes) -> None:
    data = b"\x84\xa2op\xa7message\xa2id\x07\xa4room\xa1r\xa4data" + value
    with pytest.raises(BadRequest) as caught:
        protocol.parse_packed(data, LIMITS)
    assert (*refused(caught.value), caught.value.op) == ("bad_request", 7, "r", "message")


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"", None),
        (b"hello", None),
        (b"42", None),
        (b'"ping"', None),
        (b"[]", None),
        (b"{}", None),
        (b'{"id":3}', 3),
        (b'{"op":null,"id":3}', 3),
        (b'{"op":["ping"],"id":"x"}', "x"),
        (b'{"op":"PING"}', None),
        (b'{"op":"message","room":"r","data":1', None),
        (b'{"op":"nope","data":NaN}', None),
        (b'\xef\xbb\xbf{"op":"ping"}', None),
        (b'{"op":"nope","id":[]}', None),
        (b"[" * 60 * 1024, None),
        (b'{"a":' * 10 * 1024, None),
        (b"[" * 2000 + b"]" * 2000, None),
    ],
)
def test_what_is_no_operation_is_left_to_the_handler(data: bytes, id: int | str | None) -> None:
    with pytest.raises(NotAnOperation) as caught:
        protocol.parse(data, LIMITS)
    assert (caught.value.code, caught.value.id) == ("bad_request", id)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x2a", b"\x90", b"\x80", b"\x81\x01\xa4ping", b"\x81\xa2op\xa4pin"])
def test_what_is_no_operation_in_msgpack(data: bytes) -> None:
    with pytest.raises(NotAnOperation) as caught:
        protocol.parse_packed(data, LIMITS)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("data", [b"\xff", b'{"op":"ping","id":"\xc3\x28"}', b"[\xed\xa0\x80]", b"hello \xf5"])
def test_text_that_is_not_utf8_ends_the_connection(data: bytes) -> None:
    with pytest.raises(NotUtf8, match="invalid UTF-8 at byte"):
        protocol.parse(data, LIMITS)


def test_data_is_measured_as_it_is_stored() -> None:
    limits = Limits(max_message_bytes=8)
    assert protocol.parse(MESSAGE + b"[ 1 , 2 , 3 ]  }", limits) == Message(7, "r", b"[1,2,3]")
    assert protocol.parse(MESSAGE + b'"123456"}', limits) == Message(7, "r", b'"123456"')
    with pytest.raises(BadRequest, match="9 bytes of at most 8") as caught:
        protocol.parse(MESSAGE + b'"1234567"}', limits)
    assert refused(caught.value) == ("too_large", 7, "r")
    # One byte of msgpack, six of JSON text.
    with pytest.raises(BadRequest, match="14 bytes of at most 8"):
        protocol.parse_packed(msgpack.packb({"op": "broadcast", "data": "\x00\x00"}), limits)


# Names.


@pytest.mark.parametrize("room", ["r", "A-Za-z0-9_.:@/-", "_x", "r" * 128, "x__y"])
def test_valid_rooms(room: str) -> None:
    assert protocol.room_is_valid(room)


@pytest.mark.parametrize(
    "room", ["", "r" * 129, "__", "__x", "a b", "r\n", "*", "{}", "a\x00", "ä", "a|b", "a+b", "٣", 7, None, b"r"]
)
def test_invalid_rooms(room: object) -> None:
    assert not protocol.room_is_valid(room)


@pytest.mark.parametrize("user", [0, 42, -1, 2**53, -(2**53), "42", "alice", "auth0|x+y", "a@b.c", "u" * 128])
def test_valid_users(user: object) -> None:
    assert protocol.user_id_is_valid(user)


@pytest.mark.parametrize(
    "user", [True, False, None, 1.0, 2**53 + 1, -(2**53) - 1, "", "__x", "u" * 129, "a b", "a\n", 'a"', "é", [], b"u"]
)
def test_invalid_users(user: object) -> None:
    assert not protocol.user_id_is_valid(user)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("42", 42),
        ("0", 0),
        ("9007199254740992", 2**53),
        ("9007199254740993", "9007199254740993"),
        ("042", "042"),
        ("00", "00"),
        ("-1", "-1"),
        ("+1", "+1"),
        ("1e3", "1e3"),
        ("alice", "alice"),
    ],
)
def test_user_ids_from_text(text: str, user: int | str) -> None:
    parsed = protocol.parse_user_id(text)
    assert (parsed, type(parsed)) == (user, type(user))
    assert protocol.user_id_is_valid(parsed)


@pytest.mark.parametrize("text", ["", "a b", "٤٢", "__x", "u" * 129, "42\n"])
def test_texts_that_are_no_user_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a user id"):
        protocol.parse_user_id(text)


def test_sessions() -> None:
    assert protocol.session_is_valid("AZaz09_-" * 2)
    assert protocol.session_is_valid("s" * 64)
    for session in ("", "s" * 15, "s" * 65, "s" * 15 + "\n", "s" * 15 + "é", "s" * 15 + " "):
        assert not protocol.session_is_valid(session)


# Any bytes.

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["r", "read", "a room", 2**53, 2**53 + 1, "k" * 64, "k" * 65, 0, 1, 500, 501])
)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=9)
FIELDS = (
    "id room resume presence history data key echo typing message_id status after limit before token epoch offset tag"
).split()
OPS = "join leave message broadcast typing receipt get_presence history auth ping nope".split()
objects = st.builds(
    lambda op, fields: {"op": op, **fields},
    st.sampled_from(OPS),
    st.dictionaries(st.sampled_from(FIELDS), values)
    | st.fixed_dictionaries({"room": st.just("r"), "data": values}, optional={"id": st.integers(-9, 9) | st.text()}),
)


def check_data(text: bytes) -> None:
    def walk(value: Any, depth: int) -> None:
        if isinstance(value, (list, dict)):
            assert depth < 32
            for item in value.values() if isinstance(value, dict) else value:
                walk(item, depth + 1)
        elif isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, int):
            assert -(2**63) <= value < 2**64

    walk(json.loads(text.decode()), 0)
    assert len(text) <= LIMITS.max_message_bytes


def outcome(parse: Any, data: bytes) -> Request | BadRequest | NotUtf8:
    """A request whose every field keeps its rule, or a documented error."""
    try:
        request: Request = parse(data, LIMITS)
    except (BadRequest, NotUtf8) as error:
        if isinstance(error, BadRequest):
            assert error.code in ("bad_request", "invalid_room", "too_large")
            orjson.dumps([error.id, error.room, error.message])
        return error
    assert request.op in OPS
    orjson.dumps(request.id)
    if not isinstance(request, (Broadcast, GetPresence, Auth, Ping)):
        assert protocol.room_is_valid(request.room)
    if isinstance(request, (Message, Broadcast)):
        check_data(request.data)
    return request


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
@example(b'{"op":"message","room":"r","data":"\xed\xa0\x80"}')
def test_any_text_frame_is_a_request_or_a_documented_error(data: bytes) -> None:
    outcome(protocol.parse, data)


@settings(deadline=None)
@given(st.binary())
@example(b"\x83\xa2op\xa7message\xa4room\xa1r\xa4data\xc7\x05\xff\x00\x00\x00\x00\x00")
def test_any_binary_frame_is_a_request_or_a_documented_error(data: bytes) -> None:
    assert not isinstance(outcome(protocol.parse_packed, data), NotUtf8)


@st.composite
def mutated(draw: st.DrawFn, encode: Any) -> bytes:
    data = bytearray(encode(draw(objects)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3) | st.sampled_from([b"1e999", b"[", b'"']))
    return bytes(data) or b"\x00"


@settings(deadline=None)
@given(mutated(lambda value: json.dumps(value).encode()))
def test_nearly_valid_json_is_a_request_or_a_documented_error(data: bytes) -> None:
    outcome(protocol.parse, data)


@settings(deadline=None)
@given(mutated(msgpack.packb))
def test_nearly_valid_msgpack_is_a_request_or_a_documented_error(data: bytes) -> None:
    outcome(protocol.parse_packed, data)


@settings(deadline=None)
@given(objects)
def test_both_encodings_mean_the_same(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    from_json = outcome(protocol.parse, text.encode())
    from_msgpack = outcome(protocol.parse_packed, msgpack.packb(value))
    if isinstance(from_json, Exception):
        # NaN makes all of a JSON text unreadable; in msgpack it does harm in `data` alone.
        assert isinstance(from_msgpack, BadRequest) or "NaN" in text or "Infinity" in text
    else:
        assert from_msgpack == from_json
