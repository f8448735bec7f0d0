"""Server frames byte for byte as docs/protocol.md prints them. Shapes marked ● there are fixed for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import events

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()

FIXED = [
    (events.presence("42", True), '{"op":"broadcast","type":"presence","user_id":42,"status":"online"}'),
    (events.presence_list(["101", "102"]), '{"op":"broadcast","type":"presence_list","users":[101,102]}'),
    (
        events.typing("chat-room", "42", True),
        '{"op":"broadcast","type":"typing","room":"chat-room","user_id":42,"typing":true}',
    ),
    (
        events.receipt("chat-room", 123, "42", "read"),
        '{"op":"broadcast","type":"receipt","room":"chat-room","message_id":123,"user_id":42,"status":"read"}',
    ),
]


@pytest.mark.parametrize(("event", "text"), FIXED)
def test_fixed_shapes_are_what_the_protocol_prints(event: bytes, text: str) -> None:
    assert event.decode() == text
    assert f"● `{text}`" in PROTOCOL


def test_a_refused_join_has_the_fixed_keys_and_a_code() -> None:
    text = (
        '{"op":"broadcast","type":"error","room":"admin:secrets","message":"Unauthorized or invalid room join request"}'
    )
    assert f"● `{text}`" in PROTOCOL
    event = events.error("admin:secrets", "forbidden", "Unauthorized or invalid room join request")
    assert event.decode() == text[:-1] + ',"code":"forbidden"}'


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            events.welcome(session="s", node="n", user="42", ping_s=10.0, max_message=65536),
            '{"op":"welcome","version":1,"session":"s","node":"n","user_id":42,"ping":10,"max_message":65536}',
        ),
        (
            events.welcome(session="s", node="n", user=None, ping_s=2.5, max_message=1),
            '{"op":"welcome","version":1,"session":"s","node":"n","user_id":null,"ping":2.5,"max_message":1}',
        ),
        (
            events.joined("r", b"e", 4, b"t"),
            '{"op":"broadcast","type":"joined","room":"r","epoch":"e","offset":4,"tag":"t"}',
        ),
        (events.left("r"), '{"op":"broadcast","type":"left","room":"r"}'),
        (events.reply_ok(7, {}), '{"op":"reply","id":7,"ok":true}'),
        (
            events.reply_ok('"', {"room": "r", "messages": [orjson.Fragment(b'{"a":1}')]}),
            '{"op":"reply","id":"\\"","ok":true,"room":"r","messages":[{"a":1}]}',
        ),
        (
            events.reply_error(7, "not_joined", "join first"),
            '{"op":"reply","id":7,"ok":false,"code":"not_joined","message":"join first"}',
        ),
        (
            events.error(None, "bad_request", 'say "op"'),
            '{"op":"broadcast","type":"error","message":"say \\"op\\"","code":"bad_request"}',
        ),
        (
            events.message_frame(
                events.message_head("r"), 58, b"a1", events.message_tail("42", 1732147200.1234, b'{"t":"x"}')
            ),
            '{"op":"broadcast","type":"message","room":"r","offset":58,"tag":"a1",'
            '"user_id":42,"ts":1732147200.123,"data":{"t":"x"}}',
        ),
        (
            events.position("r", 58, b"a1"),
            '{"op":"broadcast","type":"position","room":"r","offset":58,"tag":"a1"}',
        ),
        (
            events.path_broadcast("/ws", "42", b"[1]"),
            '{"op":"broadcast","type":"broadcast","path":"/ws","user_id":42,"data":[1]}',
        ),
        (
            events.path_broadcast('/"', None, b"[1]"),
            '{"op":"broadcast","type":"broadcast","path":"/\\"","user_id":null,"data":[1]}',
        ),
        (events.direct(b'{"a":1}'), '{"op":"broadcast","type":"direct","data":{"a":1}}'),
        (
            events.presence('"42"', False, "r"),
            '{"op":"broadcast","type":"presence","room":"r","user_id":"42","status":"offline"}',
        ),
        (events.presence_list([]), '{"op":"broadcast","type":"presence_list","users":[]}'),
        (
            events.presence_list(["1", '"b"'], "r", 3, '"b"'),
            '{"op":"broadcast","type":"presence_list","users":[1,"b"],"room":"r","count":3,"next":"b"}',
        ),
        (
            events.typing("r", '"b"', False),
            '{"op":"broadcast","type":"typing","room":"r","user_id":"b","typing":false}',
        ),
        (
            events.receipt("r", 'm"', '"b"', "delivered"),
            '{"op":"broadcast","type":"receipt","room":"r","message_id":"m\\"","user_id":"b","status":"delivered"}',
        ),
        (
            events.reset("r", b"e1", 0, b"0"),
            '{"op":"broadcast","type":"reset","room":"r","epoch":"e1","offset":0,"tag":"0"}',
        ),
        (events.degraded(1732147200.5), '{"op":"degraded","since":1732147200.500}'),
        (events.restored(), '{"op":"restored"}'),
        (events.drain(1730), '{"op":"drain","retry_after_ms":1730}'),
        (events.auth_expiring(30), '{"op":"auth_expiring","in_s":30}'),
        (events.pong(None), '{"op":"pong"}'),
        (events.pong(7), '{"op":"pong","id":7}'),
        (events.pong("x"), '{"op":"pong","id":"x"}'),
    ],
)
def test_shapes(event: bytes, text: str) -> None:
    assert event.decode() == text
    json.loads(text)


@settings(deadline=None)
@given(st.text(), st.integers(1, 2**53 - 1), st.none() | st.integers(-(2**53), 2**53) | st.text(), st.text())
def test_a_message_put_together_is_one_json_object(room: str, offset: int, user: int | str | None, data: Any) -> None:
    tail = events.message_tail(json.dumps(user), 1732147200.123, orjson.dumps(data))
    frame = events.message_frame(events.message_head(room), offset, b"0f", tail)
    assert json.loads(frame) == {
        "op": "broadcast",
        "type": "message",
        "room": room,
        "offset": offset,
        "tag": "0f",
        "user_id": user,
        "ts": 1732147200.123,
        "data": data,
    }
