"""Frames against RFC 6455's own examples and against the ``websockets`` library, which reads what we write."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.streams import StreamReader
from websockets.utils import apply_mask

from server import frames
from server.frames import Batch, Bounds, Ephemeral, Prepared, Topic


def run(parser: Generator[None, None, Frame]) -> Frame:
    """Parse with all the data there is. AssertionError if it is not enough."""
    try:
        next(parser)
    except StopIteration as stop:
        frame: Frame = stop.value
        return frame
    raise AssertionError("the frame is not complete")


def read(data: bytes) -> list[Frame]:
    """What a client makes of bytes a server wrote."""
    reader = StreamReader()
    reader.feed_data(data)
    found = []
    while reader.buffer:
        found.append(run(Frame.parse(reader.read_exact, mask=False)))
    return found


# Writing.


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (frames.text_frame(b"Hello"), b"\x81\x05Hello"),  # §5.7
        (frames.text_frame(b""), b"\x81\x00"),
        (frames.text_frame(b"x" * 125), b"\x81\x7d" + b"x" * 125),
        (frames.text_frame(b"x" * 126), b"\x81\x7e\x00\x7e" + b"x" * 126),
        (frames.text_frame(b"x" * 65535), b"\x81\x7e\xff\xff" + b"x" * 65535),
        (frames.text_frame(b"x" * 65536), b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"x" * 65536),
        (frames.binary_frame(b"\x00"), b"\x82\x01\x00"),
        (frames.binary_frame(b"x" * 256), b"\x82\x7e\x01\x00" + b"x" * 256),  # §5.7
        (frames.ping_frame(), b"\x89\x00"),
        (frames.PING, b"\x89\x00"),
        (frames.ping_frame(b"Hello"), b"\x89\x05Hello"),  # §5.7
        (frames.pong_frame(b"Hello"), b"\x8a\x05Hello"),
        (frames.close_frame(1000), b"\x88\x02\x03\xe8"),
        (frames.close_frame(4008, "slow"), b"\x88\x06\x0f\xa8slow"),
    ],
)
def test_frames(frame: bytes, data: bytes) -> None:
    assert frame == data


@settings(deadline=None)
@given(st.text() | st.sampled_from([125, 126, 127, 65535, 65536]).map(lambda n: "x" * n))
def test_data_frames_are_read_back(text: str) -> None:
    payload = text.encode()
    assert read(frames.text_frame(payload)) == [Frame(Opcode.TEXT, payload)]
    assert read(frames.binary_frame(payload)) == [Frame(Opcode.BINARY, payload)]


@settings(deadline=None)
@given(st.integers(3000, 4999) | st.sampled_from([1000, 1001, 1011, 1012, 1013]), st.text(max_size=200))
@example(4008, "é" * 62)
@example(4008, "x" + "😀" * 31)
def test_close_frames_are_read_back_with_as_much_reason_as_fits(code: int, reason: str) -> None:
    (frame,) = read(frames.close_frame(code, reason))
    assert frame.opcode is Opcode.CLOSE
    close = Close.parse(frame.data)
    assert close.code == code
    assert reason.startswith(close.reason)
    if close.reason != reason:
        cut = reason[len(close.reason)].encode()
        assert len(close.reason.encode()) <= 123 < len(close.reason.encode()) + len(cut)


@settings(deadline=None)
@given(st.binary(max_size=125))
def test_control_frames_are_read_back(payload: bytes) -> None:
    assert read(frames.ping_frame(payload) + frames.pong_frame(payload)) == [
        Frame(Opcode.PING, payload),
        Frame(Opcode.PONG, payload),
    ]


@pytest.mark.parametrize("write", [frames.ping_frame, frames.pong_frame])
def test_control_frames_carry_125_bytes(write: Any) -> None:
    with pytest.raises(ValueError, match="at most 125"):
        write(b"x" * 126)


# Preparing.

EVENT = b'{"op":"broadcast","offset":9007199254740991,"ts":1.5,"data":[null,18446744073709551615]}'


def test_an_event_is_encoded_once_in_each_way() -> None:
    prepared = Prepared(EVENT)
    assert prepared.frame == frames.text_frame(EVENT)
    assert prepared.frame is prepared.frame
    assert prepared.packed == msgpack.packb(orjson.loads(EVENT))
    assert prepared.packed is prepared.packed
    assert prepared.packed_frame == frames.binary_frame(prepared.packed)
    assert prepared.packed_frame is prepared.packed_frame


def test_to_packed() -> None:
    assert frames.to_packed(b'{"a":[1,-1,1.5,"x",null,true]}') == (
        b"\x81\xa1a\x96\x01\xff\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xa1x\xc0\xc3"
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"{}", EVENT, b'{"a":"' + b"x" * 200 + b'"}']).map(Prepared), max_size=5))
def test_a_batch_is_all_frames_of_its_parts_in_order(parts: list[Prepared]) -> None:
    batch = Batch(parts)
    assert [frame.data for frame in read(batch.frames)] == [part.payload for part in parts]
    assert [frame.data for frame in read(batch.packed_frames)] == [part.packed for part in parts]
    assert batch.frames is batch.frames
    assert batch.packed_frames is batch.packed_frames


def test_batches_join_in_order_and_share_their_parts() -> None:
    one, two, three = Prepared(b"1"), Prepared(b"2"), Prepared(b"3")
    joined = Batch.joined([Batch([one, two]), Batch([]), Batch([three])])
    assert list(joined.parts) == [one, two, three]
    assert joined.frames == b"\x81\x011\x81\x012\x81\x013"


# Finding.

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 70_000


def client_frame(first: int, length: int, extended: bytes = b"", mask: bytes = MASK, payload: bytes = b"") -> bytes:
    return bytes((first, length)) + extended + mask + payload


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x81\x85" + MASK + b"\x7f\x9f\x4d\x51\x58", Bounds(1, 6, 11, True, False)),  # §5.7: a masked "Hello"
        (b"\x82\x80" + MASK, Bounds(2, 6, 6, True, False)),
        (client_frame(0x81, 0xFE, b"\x00\x7e", payload=b"x" * 126), Bounds(1, 8, 134, True, False)),
        (client_frame(0x82, 0xFF, (65536).to_bytes(8, "big"), payload=b"x" * 65536), Bounds(2, 14, 65550, True, False)),
        (client_frame(0x01, 0x80), Bounds(1, 6, 6, False, False)),  # the first of several fragments
        (client_frame(0x80, 0x80), Bounds(0, 6, 6, True, False)),  # the last one
        (client_frame(0xC1, 0x80), Bounds(1, 6, 6, False, False)),  # RSV1: the library reads all of it, then refuses
        (client_frame(0x89, 0x80), Bounds(9, 6, 6, True, False)),
        (client_frame(0x8A, 0x80), Bounds(10, 6, 6, True, False)),
        (client_frame(0x88, 0x80), Bounds(8, 6, 6, True, False)),
        (b"", 2),
        (b"\x81", 2),
        (b"\x81\x80", 6),
        (b"\x81\x85" + MASK, 11),
        (b"\x81\xfe", 4),
        (b"\x81\xfe\x00", 4),
        (b"\x81\xfe\x01\x00", 264),
        (b"\x81\xff", 10),
        (b"\x81\xff" + bytes(7), 10),
        (b"\x81\xff" + bytes(8), 14),
        (b"\x81\x05", Bounds(1, 0, 0, False, True)),  # no mask
        (b"\x83\x80", Bounds(3, 0, 0, False, True)),  # reserved opcodes
        (b"\x8b\x80", Bounds(11, 0, 0, False, True)),
        (b"\x81\xff" + (LIMIT + 1).to_bytes(8, "big"), Bounds(1, 0, 0, False, True)),  # known from ten bytes
        (b"\x81\xff" + b"\xff" * 8, Bounds(1, 0, 0, False, True)),
    ],
)
def test_next_frame(data: bytes, expected: Bounds | int) -> None:
    assert frames.next_frame(data, 0, LIMIT) == expected
    shifted = frames.next_frame(bytearray(b"###" + data), 3, LIMIT)
    if isinstance(expected, Bounds) and not expected.broken:
        assert shifted == expected._replace(begin=expected.begin + 3, stop=expected.stop + 3)
    else:
        assert shifted == expected


def test_a_short_length_over_the_limit_is_known_from_the_header() -> None:
    assert frames.next_frame(b"\x81\xfe\x01\x00", 0, 255) == Bounds(1, 0, 0, False, True)
    assert frames.next_frame(b"\x81\x90", 0, 15) == Bounds(1, 0, 0, False, True)
    assert frames.next_frame(b"\x81\x90", 0, 16) == 22


lengths = st.integers(0, 130) | st.sampled_from([65535, 65536, 300])


@st.composite
def client_frames(draw: st.DrawFn) -> bytes:
    length = draw(lengths)
    size = draw(st.sampled_from([n for n in (1, 2, 8) if length < 126 or (n == 2 and length < 65536) or n == 8]))
    masked = draw(st.sampled_from([0x80] * 9 + [0]))
    header = (
        bytes((masked | length,))
        if size == 1
        else bytes((masked | (126 if size == 2 else 127),)) + length.to_bytes(size, "big")
    )
    first = draw(st.sampled_from([0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x00, 0x80]) | st.integers(0, 255))
    return bytes((first,)) + header + (MASK if masked else b"") + b"x" * length


@settings(deadline=None)
@given(
    client_frames() | st.binary(max_size=40), st.integers(0, 65550), st.sampled_from([0, 64, 125, 126, 65535, 65536])
)
def test_the_library_agrees_about_every_frame(data: bytes, cut: int, limit: int) -> None:
    data = data[: max(0, len(data) - cut)]
    bounds = frames.next_frame(data, 0, limit)
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=True, max_size=limit)
    if isinstance(bounds, int):
        assert len(data) < bounds, "asks for what is there"
        next(parser)  # and the library waits, too
    elif bounds.broken:
        with pytest.raises((ProtocolError, PayloadTooBig)):
            run(parser)
    else:
        raw = data[bounds.begin : bounds.stop]
        try:
            frame = run(parser)
        except ProtocolError:
            # Judged by the library once all of it is there: reserved bits, long or fragmented control frames.
            assert not bounds.plain or bounds.opcode >= 8
        else:
            assert frame.opcode == bounds.opcode
            assert frame.data == apply_mask(raw, data[bounds.begin - 4 : bounds.begin])
            assert bounds.plain == frame.fin
            assert data[bounds.stop :] == bytes(reader.buffer)


@settings(deadline=None)
@given(st.lists(client_frames(), min_size=1, max_size=4))
def test_frames_are_found_one_after_the_other_however_they_are_cut(parts: list[bytes]) -> None:
    """Byte by byte, a frame is found exactly when its last byte is there."""
    data = b"".join(parts)
    start = 0
    for part in parts:
        whole = frames.next_frame(data, start, LIMIT)
        if isinstance(whole, Bounds) and whole.broken:
            return
        assert isinstance(whole, Bounds)
        assert whole.stop == start + len(part)
        need = 1
        while need < len(part):
            bounds = frames.next_frame(data[: start + need], start, LIMIT)
            assert isinstance(bounds, int)
            assert need < bounds <= len(part)
            need = bounds
        start = whole.stop


@settings(deadline=None)
@given(client_frames() | st.binary(max_size=40))
def test_what_is_called_broken_fails_the_connection(data: bytes) -> None:
    """The fast lane gives such bytes to the library and relies on it to close with the right code."""
    bounds = frames.next_frame(data, 0, LIMIT)
    if isinstance(bounds, Bounds) and bounds.broken:
        rules = WebSocketProtocol(SERVER, state=OPEN, max_size=LIMIT)
        rules.receive_data(data)
        assert rules.parser_exc is not None
        assert rules.close_sent is not None
        assert rules.close_sent.code in (1002, 1009)


def test_what_may_give_way_is_told_apart_once() -> None:
    message, typing = Prepared(b"1"), Ephemeral(b"2", Topic("typing", "r", "7"))
    batch = Batch([message, typing, Prepared(b"3")])
    staying, giving = batch.apart()
    assert giving == [typing]
    assert staying is not None and staying.frames == b"\x81\x011\x81\x013"
    assert batch.apart()[0] is staying
    assert Batch([typing]).apart() == (None, [typing])
    whole = Batch([message])
    assert whole.apart() == (whole, []), "nothing is made anew"
